// Backward: an item is some channels of one image. It clears them and adds the gradient of every bin of its RoIs, in
// one order, to the pixel that argmax names; so nobody else writes there, whatever the number of threads.

template <class T>
class ScatterWorker {
  using A = acc_t<T>;

 public:
  ScatterWorker(const RoiPoolParams& p, const T* grad, const int64_t* grad_strides, const int32_t* argmax,
                const int64_t* argmax_strides, T* grad_input, bool channels_last)
      : p_(p),
        grad_(grad),
        gs_(grad_strides),
        argmax_(argmax),
        as_(argmax_strides),
        grad_input_(grad_input),
        channels_last_(channels_last),
        pixels_(p.height * p.width) {}

  // Channels [c0, c0 + channels) of an image. Half types are summed in a float copy.
  void begin(int64_t image, int64_t c0, int64_t channels) {
    image_ = image, c0_ = c0, channels_ = channels;
    if constexpr (std::is_same_v<T, A>) {
      sum_ = destination();
      pixel_stride_ = channels_last_ ? p_.channels : 1;
      channel_stride_ = channels_last_ ? 1 : pixels_;
    } else {
      sum_ = sums_.at_least(pixels_ * channels);
      pixel_stride_ = channels_last_ ? channels : 1;
      channel_stride_ = channels_last_ ? 1 : pixels_;
    }
    if (channels_last_ && pixel_stride_ != channels)
      for (int64_t i = 0; i < pixels_; ++i) std::fill_n(sum_ + i * pixel_stride_, channels, A(0));
    else
      std::fill_n(sum_, pixels_ * channels, A(0));
  }

  void add(int64_t k) const {
    const int64_t outer = channels_last_ ? 1 : channels_, inner = channels_last_ ? channels_ : 1;
    for (int64_t c = 0; c < outer; ++c)
      for (int64_t ph = 0; ph < p_.pooled_height; ++ph)
        for (int64_t pw = 0; pw < p_.pooled_width; ++pw) {
          const T* grad = grad_ + k * gs_[0] + (c0_ + c) * gs_[1] + ph * gs_[2] + pw * gs_[3];
          const int32_t* argmax = argmax_ + k * as_[0] + (c0_ + c) * as_[1] + ph * as_[2] + pw * as_[3];
          A* sum = sum_ + c * channel_stride_;
          for (int64_t i = 0; i < inner; ++i) {
            const auto at = static_cast<uint32_t>(argmax[i * as_[1]]);  // -1 is beyond every map
            if (at < pixels_) sum[at * pixel_stride_ + i] += static_cast<A>(grad[i * gs_[1]]);
          }
        }
  }

  // Asks for what add(k) will read, and for the pixels it may add to: a RoI's part of a stripe of channels lies in
  // pieces of a few lines each.
  void prefetch(int64_t k, const AxisBins& y, const AxisBins& x) const {
    const int64_t outer = channels_last_ ? 1 : channels_;
    for (int64_t c = 0; c < outer; ++c)
      for (int64_t ph = 0; ph < p_.pooled_height; ++ph)
        for (int64_t pw = 0; pw < (channels_last_ ? p_.pooled_width : 1); ++pw) {
          const int64_t length = channels_last_ ? channels_ : p_.pooled_width;
          lines(grad_ + k * gs_[0] + (c0_ + c) * gs_[1] + ph * gs_[2] + pw * gs_[3], length);
          lines(argmax_ + k * as_[0] + (c0_ + c) * as_[1] + ph * as_[2] + pw * as_[3], length);
        }
    if (!channels_last_) return;  // a plane is in the L2 cache
    for (int64_t i = y.begin(); i < y.end(); ++i)
      for (int64_t j = x.begin(); j < x.end(); ++j) lines(sum_ + (i * p_.width + j) * pixel_stride_, channels_);
  }

  void finish() const {
    if constexpr (!std::is_same_v<T, A>) {
      T* to = destination();
      if (!channels_last_) return convert(sum_, to, pixels_ * channels_);
      for (int64_t i = 0; i < pixels_; ++i) convert(sum_ + i * channels_, to + i * p_.channels, channels_);
    }
  }

 private:
  template <class S>
  static void lines(const S* from, int64_t length) {
    for (int64_t i = 0; i < length; i += 64 / static_cast<int64_t>(sizeof(S))) __builtin_prefetch(from + i);
  }
  T* destination() const {
    T* image = grad_input_ + image_ * p_.channels * pixels_;
    return channels_last_ ? image + c0_ : image + c0_ * pixels_;
  }
  static void convert(const A* from, T* to, int64_t n) {
    int64_t i = 0;
    for (; i + kLanes<A> <= n; i += kLanes<A>) store(to + i, load(from + i));
    for (; i < n; ++i) to[i] = static_cast<T>(from[i]);
  }

  const RoiPoolParams& p_;
  const T* grad_;
  const int64_t* gs_;
  const int32_t* argmax_;
  const int64_t* as_;
  T* grad_input_;
  const bool channels_last_;
  const int64_t pixels_;
  int64_t image_ = 0, c0_ = 0, channels_ = 0, pixel_stride_ = 0, channel_stride_ = 0;
  A* sum_ = nullptr;
  Scratch<A> sums_;
};

template <class T>
void roi_pool_backward(const RoiPoolParams& p, const T* grad, const int64_t gs[4], const double* rois,
                       const int32_t* argmax, const int64_t as[4], T* grad_input, bool channels_last,
                       ParallelFor parallel_for) {
  const BinTable table(p, rois, parallel_for);
  const std::vector<int64_t> order = order_by_place(p, rois, table);
  std::vector<RoiRun> runs(static_cast<size_t>(p.batch));  // one an image, empty ones too
  for (const RoiRun& run : runs_of(order, rois, p.rois)) runs[run.image] = run;
  const int64_t block = even_block(p.channels, channels_last ? 64 : 4), blocks = (p.channels + block - 1) / block;
  const double steps =
      static_cast<double>(p.channels) * (static_cast<double>(p.rois * p.pooled_height * p.pooled_width) * 2 +
                                         static_cast<double>(p.batch * p.height * p.width) / kLanes<acc_t<T>>);
  share(parallel_for, workers_for(steps), p.batch * blocks, 1, [&](ItemQueue& queue) {
    ScatterWorker<T> worker(p, grad, gs, argmax, as, grad_input, channels_last);
    for (int64_t i, end; queue.take(i, end);)
      for (; i < end; ++i) {
        const int64_t image = i / blocks, c0 = i % blocks * block;
        worker.begin(image, c0, std::min(block, p.channels - c0));
        for (int64_t n = runs[image].begin; n < runs[image].end; ++n) {
          const int64_t k = order[n], next = order[std::min(n + 1, runs[image].end - 1)];
          if (table.finite(next)) worker.prefetch(next, table.rows(next), table.columns(next));
          if (table.finite(k)) worker.add(k);
        }
        worker.finish();
      }
  });
}
