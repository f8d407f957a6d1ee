// The geometry of rotated boxes, without branches: for one (V = double), or for one in each lane of a vector.
// structops/reference/box_iou_rotated.py is the definition, and derives it; here and in the Triton kernels the same
// operations are done in the same order, all in double, so that every backend gives the same bits.
//
// Included within a namespace, once per instruction set or once for the GPU (common/cpu/foreach_isa.h says why), so it
// has no include guard and includes nothing: box_iou_rotated/rotated_box.h comes first.

template <class V>
STRUCTOPS_HOST_DEVICE V between(V v, V low, V high) {
  const V raised = v < low ? low : v;
  return raised > high ? high : raised;
}
template <class V>
STRUCTOPS_HOST_DEVICE V magnitude(V v) {
  return v < V{} ? -v : v;
}

// cos, sin: of the box's angle; of any angle, where that is not finite.
template <class V>
STRUCTOPS_HOST_DEVICE RotatedBoxOf<V> rotated_box(V x, V y, V width, V height, V degrees, V cos, V sin) {
  const V zero = V{}, limit = zero + kRotatedLimit, smallest = zero + kRotatedSmallest;
  const auto finite = (magnitude(x) <= limit) & (magnitude(y) <= limit) & (magnitude(width) <= limit) &
                      (magnitude(height) <= limit) & (degrees - degrees == zero);
  const auto solid = finite & (width > smallest) & (height > smallest);
  RotatedBoxOf<V> box;
  box.x = finite ? x : zero;
  box.y = finite ? y : zero;
  box.cos = cos;
  box.sin = sin;
  box.half_width = solid ? 0.5 * width : zero;
  box.half_height = solid ? 0.5 * height : zero;
  box.area = solid ? width * height : (finite ? zero : zero + NAN);
  return box;
}

// The bounds along one axis: the middle of a box and half its extent. The margin of a millionth of the whole box makes
// sure that where bounds are apart the double arithmetic finds an axis that separates the boxes too, and covers the
// rounding of the bounds to float32. Around a box that is not finite lies everything.
template <class V>
STRUCTOPS_HOST_DEVICE V bounds_reach(V middle, V half, V other_half, V area) {
  const V margin = 1e-6 * (half + other_half) + 1e-37;
  const V reach = half + margin + 5e-7 * (magnitude(middle) + half);
  return area != area ? V{} + INFINITY : reach;
}
template <class V>
struct RotatedBoundsOf {
  V x1, y1, x2, y2;
};
template <class V>
STRUCTOPS_HOST_DEVICE RotatedBoundsOf<V> rotated_bounds(const RotatedBoxOf<V>& b) {
  const V c = magnitude(b.cos), s = magnitude(b.sin);
  const V half_x = b.half_width * c + b.half_height * s, half_y = b.half_width * s + b.half_height * c;
  const V reach_x = bounds_reach(b.x, half_x, half_y, b.area), reach_y = bounds_reach(b.y, half_y, half_x, b.area);
  return {b.x - reach_x, b.y - reach_y, b.x + reach_x, b.y + reach_y};
}

// The upright rectangle that a polygon is cut with, and the height that integrals are taken from: the one inside the
// rectangle that is next to the origin.
template <class V>
struct Window {
  V left, right, top, bottom, base;

  // The integral of (y - base), y kept between top and bottom, over the part of the edge from (x0, y0) to (x1, y1) that
  // is between left and right. slope: dy / dx of the edge, inverse: dx / dy, each 0 where it would be infinite.
  STRUCTOPS_HOST_DEVICE V under(V x0, V y0, V x1, V y1, V slope, V inverse) const {
    const V start_x = between(x0, left, right), end_x = between(x1, left, right);
    const V start_y = y0 + (start_x - x0) * slope, end_y = y1 + (end_x - x1) * slope;
    const V first_y = between(start_y, top, bottom), last_y = between(end_y, top, bottom);
    const V low = start_x < end_x ? start_x : end_x, high = start_x < end_x ? end_x : start_x;
    // Between these the edge itself is between top and bottom.
    const V enter = between(start_x + (first_y - start_y) * inverse, low, high);
    const V leave = between(end_x + (last_y - end_y) * inverse, low, high);
    const V first = first_y - base, last = last_y - base;
    return first * (enter - start_x) + 0.5 * (first + last) * (leave - enter) + last * (end_x - leave);
  }
};

template <class V>
STRUCTOPS_HOST_DEVICE V rotated_iou(const RotatedBoxOf<V>& a, const RotatedBoxOf<V>& b) {
  const V zero = V{}, one = zero + 1.0;
  // b as a sees it, in the directions of a's sides: its centre and its direction. Angles that differ by less than
  // double positions resolve are equal, so that no slope is ever steep enough to overflow.
  const V dx = b.x - a.x, dy = b.y - a.y;
  const V at_x = dx * a.cos - dy * a.sin, at_y = dx * a.sin + dy * a.cos;
  V c = a.cos * b.cos + a.sin * b.sin, s = a.sin * b.cos - a.cos * b.sin;
  const auto straight = magnitude(s) < zero + 1e-18, crossed = magnitude(c) < zero + 1e-18;
  c = straight ? one : (crossed ? zero : c);
  s = crossed ? one : (straight ? zero : s);
  const V slope = s / (crossed ? one : c), inverse = c / (straight ? one : s);
  const V p = crossed ? zero : slope, q = straight ? zero : inverse;

  // The origin is b's centre: a small box in a large one keeps its digits.
  Window<V> window{-a.half_width - at_x, a.half_width - at_x, -a.half_height - at_y, a.half_height - at_y};
  window.base = between(zero, window.top, window.bottom);
  const V ux = b.half_width * c, uy = b.half_width * s, vx = -b.half_height * s, vy = b.half_height * c;
  const V ex = ux + vx, ey = uy + vy, fx = ux - vx, fy = uy - vy;
  const V along = window.under(-ex, -ey, fx, fy, p, q) + window.under(ex, ey, -fx, -fy, p, q);
  const V across = window.under(fx, fy, ex, ey, -q, -p) + window.under(-fx, -fy, -ex, -ey, -q, -p);
  const V smaller = a.area < b.area ? a.area : b.area;
  V overlap = between(zero - (along + across), zero, smaller);
  // Apart along one of a's sides, the sum is exactly 0; apart along b's, it could be anything of the size of rounding.
  const V turned_x = at_x * c + at_y * s, turned_y = at_y * c - at_x * s;
  const V abs_c = magnitude(c), abs_s = magnitude(s);
  const auto apart = (magnitude(turned_x) >= b.half_width + (a.half_width * abs_c + a.half_height * abs_s)) |
                     (magnitude(turned_y) >= b.half_height + (a.half_width * abs_s + a.half_height * abs_c));
  overlap = apart ? zero : overlap;
  const V joint = a.area + b.area - overlap;
  return overlap / (joint == zero ? one : joint);
}
