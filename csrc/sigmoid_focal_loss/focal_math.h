// The loss of one element and its derivative, where nothing cancels: for a number on the GPU, for a vector on the CPU.
//
// Included inside a namespace (on the CPU once per instruction set, see common/cpu/foreach_isa.h), so it has no include
// guard and includes nothing: common/roi_axis.h comes first, for STRUCTOPS_HOST_DEVICE.
//
// With p = sigmoid(x), q = 1 - p and target t: cross = (1 - t) softplus(x) + t softplus(-x), hard = 1 - p_t =
// p (1 - t) + q t, weight = alpha t + (1 - alpha) (1 - t), and the loss is weight * hard^gamma * cross. p, q and
// softplus come from exp(-|x|), which neither overflows nor loses digits. A term whose factor is zero is left out, so
// that an infinite logit has the limit as its loss, and not 0 * inf.
//
// M is the mathematics of V: exp of numbers <= 0, log1p of numbers in [0, 1], divide by a number in [1, 2], power(hard)
// = hard^gamma, largest, and square: whether gamma is 2, which needs no power.
template <class V, class M>
struct Focal {
  V one, positive, negative, gamma;
  M maths;

  struct Parts {
    V p, q, rest, weight, hard, cross;  // rest = 1 - t
  };

  STRUCTOPS_HOST_DEVICE Parts parts(V x, V t, V size) const {
    const V zero{}, e = maths.exp(-size), near = maths.divide(one, one + e), far = e * near, rest = one - t;
    const V p = x < zero ? far : near, q = x < zero ? near : far;
    const V share = x < zero ? t : rest;
    const V linear = share == zero ? zero : share * size;
    return {p, q, rest, positive * t + negative * rest, p * rest + q * t, linear + maths.log1p(e)};
  }

  STRUCTOPS_HOST_DEVICE V loss(V x, V t) const {
    const Parts a = parts(x, t, x < V{} ? -x : x);
    return a.weight * a.cross * (maths.square ? a.hard * a.hard : maths.power(a.hard));
  }

  // Of the loss by x. The size is kept finite: it is multiplied by p q, which is then zero.
  STRUCTOPS_HOST_DEVICE V slope(V x, V t) const {
    const V zero{}, size = x < zero ? -x : x;
    const Parts a = parts(x, t, size > maths.largest ? maths.largest : size);
    const V cross_slope = a.p * a.rest - a.q * t;  // p - t
    const V hard_slope = gamma * (a.rest - t) * (a.p * a.q);
    if (maths.square) return a.weight * a.hard * (a.hard * cross_slope + hard_slope * a.cross);
    // Where hard vanishes so does p q, of which it then is the larger.
    const V ratio = a.hard == zero ? zero : hard_slope / a.hard;
    return a.weight * maths.power(a.hard) * (cross_slope + ratio * a.cross);
  }
};
