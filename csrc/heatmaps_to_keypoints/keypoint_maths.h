// Keypoints of a map that is resized bicubically (align_corners=False), with torch's arithmetic, to the bit.
//
// Without an include guard: it is included in the namespace that has fused(a, b, c), a * b + c rounded once, after
// common/host_device.h and <cmath>. Where that is an fma is where torch's compiled kernels have one: found by comparing
// with them to the last bit, for AVX2 and AVX-512. Built for older CPUs they have none, and neither has fused().

// A sum of four terms as torch rounds it: the second term's product first.
template <class V>
STRUCTOPS_HOST_DEVICE V cubic_sum(V v0, V v1, V v2, V v3, V w0, V w1, V w2, V w3) {
  return fused(v3, w3, fused(v2, w2, fused(v0, w0, v1 * w1)));
}

// A bound of the values interpolated among pixels from least to most: the weights add up to 1, and the negative ones
// among them to no less than -(2 * 1.1875 * 0.1875). What rounding can add is far less than 32 units in the last place.
template <class V, class T>
STRUCTOPS_HOST_DEVICE V bicubic_bound(V least, V most, T epsilon) {
  const V size = most > -least ? most : -least;  // of the larger, once neither is NaN
  return most + (most - least) * (V{} + T(0.4453125)) + size * (V{} + T(32) * epsilon);
}

template <class T>
struct BicubicAxis {
  int extent, size;  // pixels of the map, and of what it is resized to
  T scale;

  STRUCTOPS_HOST_DEVICE BicubicAxis(int extent_, int size_)
      : extent(extent_), size(size_), scale(T(extent_) / T(size_)) {}

  STRUCTOPS_HOST_DEVICE T source(int at) const { return fused(scale, T(at) + T(0.5), T(-0.5)); }

  // The pixel at or below, from -1 to extent - 1: values come from those of low - 1 to low + 2 that exist, or else
  // from the nearest that does.
  STRUCTOPS_HOST_DEVICE int low(int at) const {
    const int below = int(floor(source(at)));
    return below < extent - 1 ? below : extent - 1;
  }

  STRUCTOPS_HOST_DEVICE void weights(int at, T (&w)[4]) const {
    T t = source(at) - T(low(at));
    t = t > T(0) ? t : T(0);
    t = t < T(1) ? t : T(1);
    const T rest = T(1) - t;
    w[0] = far_weight(t + T(1));
    w[1] = near_weight(t);
    w[2] = near_weight(rest);
    w[3] = far_weight(rest + T(1));
  }

  // The first pixel of the result whose low is not below this one.
  STRUCTOPS_HOST_DEVICE int first(int low_) const {
    const T guess = (T(low_) + T(0.5)) / scale - T(0.5);
    int at = guess < T(0) ? 0 : (guess < T(size) ? int(guess) : size);
    while (at > 0 && low(at - 1) >= low_) --at;
    while (at < size && low(at) < low_) ++at;
    return at;
  }

 private:
  // Keys' kernel with a = -0.75, up to 1 pixel away and from 1 to 2.
  STRUCTOPS_HOST_DEVICE static T near_weight(T x) { return fused(T(1.25), x, T(-2.25)) * x * x + T(1); }
  STRUCTOPS_HOST_DEVICE static T far_weight(T x) { return fused(fused(T(-0.75), x, T(3.75)), x, T(-6)) * x + T(3); }
};

// The best of the values met so far, as torch's argmax has it: NaN is the largest, of equals the first.
template <class T>
struct BestPixel {
  T value;
  int at;

  STRUCTOPS_HOST_DEVICE void offer(T v, int where) {
    const bool no_number = value != value;
    const bool larger = v > value || (v != v && !no_number), equal = v == value || (v != v && no_number);
    if (larger || (equal && where < at)) value = v, at = where;
  }
};

// A RoI as keypoints are found in it: torchvision's, but that no side of the result is longer than kMaxResized.
template <class T>
struct KeypointRoi {
  T x, y, width_step, height_step;  // of a pixel of the resized map
  int width, height;                // of the resized map
  bool finite;

  STRUCTOPS_HOST_DEVICE explicit KeypointRoi(const T* box) : x(box[0]), y(box[1]) {
    const T w = side(box[2] - box[0]), h = side(box[3] - box[1]);
    finite = (x - x) + (y - y) + (w - w) + (h - h) == T(0);
    width = pixels(finite ? w : T(1));
    height = pixels(finite ? h : T(1));
    width_step = w / T(width);
    height_step = h / T(height);
  }

 private:
  STRUCTOPS_HOST_DEVICE static T side(T length) { return length < T(1) ? T(1) : length; }  // NaN stays
  STRUCTOPS_HOST_DEVICE static int pixels(T length) {
    return length < T(kMaxResized) ? int(ceil(length)) : kMaxResized;
  }
};

// keypoint [3] (x, y, 1) and its score, from the best pixel of the resized map; NaN where the RoI has no size.
template <class T>
STRUCTOPS_HOST_DEVICE void write_keypoint(const KeypointRoi<T>& roi, BestPixel<T> best, T* keypoint, T* score) {
  const T x = (T(best.at % roi.width) + T(0.5)) * roi.width_step;
  const T y = (T(best.at / roi.width) + T(0.5)) * roi.height_step;
  keypoint[0] = roi.finite ? x + roi.x : T(NAN);
  keypoint[1] = roi.finite ? y + roi.y : T(NAN);
  keypoint[2] = T(1);
  *score = roi.finite ? best.value : T(NAN);
}
