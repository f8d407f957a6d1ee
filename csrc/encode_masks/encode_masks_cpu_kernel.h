// Run-length encoding of masks on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
//
// Runs go down the columns, masks lie in memory by rows. So 64 rows at a time become bits (a read of every byte, which
// is most of the time for a mask with little in it), squares of 64 x 64 bits are transposed, unless they are all alike,
// and a word holds 64 pixels of a column. What differs from its predecessor is then a shift and an exclusive or, and
// runs end where such a bit is set.

constexpr int64_t kSide = 64;

// Bit l: whether byte l of 64 is not 0.
inline uint64_t bits_of_bytes(const uint8_t* bytes) {
#if STRUCTOPS_ISA_AVX512
  const __m512i all = _mm512_loadu_si512(bytes);
  return _mm512_test_epi8_mask(all, all);
#elif STRUCTOPS_ISA_AVX2
  const auto half = [](const uint8_t* at) {
    const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(some, _mm256_setzero_si256())));
  };
  return half(bytes) | static_cast<uint64_t>(half(bytes + 32)) << 32;
#else
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  uint64_t word = 0;
  for (int64_t i = 0; i < 8; ++i) {
    uint64_t eight;
    std::memcpy(&eight, bytes + 8 * i, 8);
    const uint64_t set = (((eight & kLow) + kLow) | eight) >> 7 & 0x0101010101010101;  // 1 in each byte that is not 0
    word |= (set * 0x0102040810204080 >> 56) << (8 * i);                               // gathered in the highest
  }
  return word;
#endif
}

template <int64_t kDistance>
inline void exchange_bits(uint64_t* rows, uint64_t low) {
  for (int64_t first = 0; first < kSide; first += 2 * kDistance)
    for (int64_t i = first; i < first + kDistance; ++i) {
      const uint64_t other = (rows[i] >> kDistance ^ rows[i + kDistance]) & low;
      rows[i] ^= other << kDistance;
      rows[i + kDistance] ^= other;
    }
}

// Afterwards bit r of word c is what bit c of word r was.
inline void transpose_bits(uint64_t* rows) {
  exchange_bits<32>(rows, 0x00000000ffffffff);
  exchange_bits<16>(rows, 0x0000ffff0000ffff);
  exchange_bits<8>(rows, 0x00ff00ff00ff00ff);
  exchange_bits<4>(rows, 0x0f0f0f0f0f0f0f0f);
  exchange_bits<2>(rows, 0x3333333333333333);
  exchange_bits<1>(rows, 0x5555555555555555);
}

// One mask after another, in memory that is kept.
class MaskEncoder {
 public:
  explicit MaskEncoder(const EncodeParams& p)
      : p_(p),
        squares_((p.width + kSide - 1) / kSide),
        blocks_((p.height + kSide - 1) / kSide),
        columns_(squares_ * kSide),
        rows_(rows_memory_.at_least(kSide * squares_)),
        words_(words_memory_.at_least((blocks_ + 1) * columns_)) {}

  void encode(const uint8_t* mask, std::string& string) {
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t height = std::min(kSide, p_.height - b * kSide);
      for (int64_t r = 0; r < height; ++r) read_row(mask + (b * kSide + r) * p_.row_bytes, rows_ + r * squares_);
      for (int64_t s = 0; s < squares_; ++s) turn(s, height, words_ + b * columns_ + s * kSide);
    }
    mark_changes();
    write(string);
  }

 private:
  void read_row(const uint8_t* row, uint64_t* to) const {
    if (p_.packed) {
      to[squares_ - 1] = 0;
      std::memcpy(to, row, static_cast<size_t>(p_.row_bytes));
      if (p_.width % kSide) to[squares_ - 1] &= (uint64_t{1} << p_.width % kSide) - 1;
      return;
    }
    const int64_t whole = p_.width / kSide;
    for (int64_t s = 0; s < whole; ++s) to[s] = bits_of_bytes(row + s * kSide);
    if (whole == squares_) return;
    alignas(64) uint8_t last[kSide] = {};
    std::memcpy(last, row + whole * kSide, static_cast<size_t>(p_.width - whole * kSide));
    to[whole] = bits_of_bytes(last);
  }

  void turn(int64_t s, int64_t height, uint64_t* to) const {
    uint64_t some = 0, every = ~uint64_t{0};
    for (int64_t r = 0; r < height; ++r) {
      to[r] = rows_[r * squares_ + s];
      some |= to[r], every &= to[r];
    }
    if (some == 0 || every == ~uint64_t{0}) {
      const uint64_t column = some == 0 ? 0 : height == kSide ? ~uint64_t{0} : (uint64_t{1} << height) - 1;
      std::fill_n(to, kSide, column);
      return;
    }
    std::fill(to + height, to + kSide, uint64_t{0});
    transpose_bits(to);
  }

  // Each bit becomes whether its pixel differs from the one before. A further row of words says of each column whether
  // any does.
  void mark_changes() {
    uint64_t* any = words_ + blocks_ * columns_;
    uint64_t* last = words_ + (blocks_ - 1) * columns_;
    const int64_t end = (p_.height - 1) % kSide;  // bit of a column's last pixel
    any[0] = 0;                                   // the first column follows nothing
    for (int64_t c = 1; c < columns_; ++c) any[c] = last[c - 1] >> end & 1;
    for (int64_t b = blocks_ - 1; b > 0; --b) {
      uint64_t* word = words_ + b * columns_;
      const uint64_t* above = word - columns_;
      for (int64_t c = 0; c < columns_; ++c) word[c] ^= word[c] << 1 | above[c] >> 63;
    }
    for (int64_t c = 0; c < columns_; ++c) words_[c] ^= words_[c] << 1 | any[c];
    const uint64_t inside = ~uint64_t{0} >> (kSide - 1 - end);
    for (int64_t c = 0; c < columns_; ++c) any[c] = last[c] &= inside;
    for (int64_t b = 0; b + 1 < blocks_; ++b)
      for (int64_t c = 0; c < columns_; ++c) any[c] |= words_[b * columns_ + c];
  }

  void write(std::string& string) {
    const uint64_t* any = words_ + blocks_ * columns_;
    const int64_t room = (p_.height + 1) * kMostCharacters;  // most that a column and the end can need
    int64_t size = 0, begin = 0, before = 0, before_that = 0, runs = 0;
    const auto run = [&](int64_t end, uint8_t* to) {
      const int64_t length = end - begin, number = length - (runs > 2 ? before_that : 0);
      begin = end, before_that = before, before = length, ++runs;
      return write_run(number, to);
    };
    for (int64_t c = 0; c < p_.width; ++c) {
      if (any[c] == 0) continue;
      uint8_t* text = reserve(size, size + room);
      uint8_t* to = text + size;
      for (int64_t b = 0; b < blocks_; ++b)
        for (uint64_t word = words_[b * columns_ + c]; word != 0; word &= word - 1)
          to = run(c * p_.height + b * kSide + std::countr_zero(word), to);
      size = to - text;
    }
    uint8_t* text = reserve(size, size + room);
    size = run(p_.width * p_.height, text + size) - text;
    string.assign(reinterpret_cast<const char*>(text), static_cast<size_t>(size));
  }

  // Room for so many characters; the first `size` are kept.
  uint8_t* reserve(int64_t size, int64_t wanted) {
    if (wanted > int64_t(text_.size())) {
      text_.resize(static_cast<size_t>(size));
      text_.resize(static_cast<size_t>(std::max(2 * wanted, int64_t{4096})));
    }
    return reinterpret_cast<uint8_t*>(text_.data());
  }

  const EncodeParams& p_;
  const int64_t squares_, blocks_, columns_;
  Scratch<uint64_t> rows_memory_, words_memory_;
  uint64_t* const rows_;   // [64, squares]: 64 rows of the mask
  uint64_t* const words_;  // [blocks + 1, columns]: the mask by columns
  std::string text_;
};

inline void encode_masks(const EncodeParams& p, const uint8_t* masks, std::vector<std::string>& strings,
                         ParallelFor parallel_for) {
  if (p.height == 0 || p.width == 0) {
    std::fill(strings.begin(), strings.end(), std::string("0"));
    return;
  }
  const double steps = double(p.count) * double(p.height) * double(p.row_bytes) / 32;
  share(parallel_for, std::min(p.count, workers_for(steps)), p.count, 1, [&](ItemQueue& queue) {
    MaskEncoder encoder(p);
    for (int64_t k, end; queue.take(k, end);)
      encoder.encode(masks + k * p.height * p.row_bytes, strings[static_cast<size_t>(k)]);
  });
}
