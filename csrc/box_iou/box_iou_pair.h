// The arithmetic of one pair of boxes, of its gradient, and of what a box brings along, on CPU and GPU alike.
//
// Included inside a namespace, once per instruction set, so it has no include guard and includes nothing:
// common/box_coding.h and box_iou/box_iou.h come first. V is float or double, or a vector of those, lane by lane.
//
// Every operation rounds once, in the order of torchvision's Python, so that values agree with it to the bit. Gradients
// follow torch's rules: a maximum of equals gives half to each, a clamp at its bound lets no gradient through.

template <class V>
struct Side {
  V x1, y1, x2, y2, area, angle;  // the angle: arc tangent of width / height, for the complete form alone
};

// What reaches one box, summed over the others. The area and the angle are passed on to the corners once, in
// gradient_of_box, because torch multiplies after summing too (which decides what becomes NaN).
template <class V>
struct SideGradient {
  V x1, y1, x2, y2, area, angle;
};
constexpr int kGradientFields = 6;

template <class V>
STRUCTOPS_HOST_DEVICE V larger(V a, V b) {
  return a > b ? a : b;
}
template <class V>
STRUCTOPS_HOST_DEVICE V smaller(V a, V b) {
  return a < b ? a : b;
}
// The same, and NaN where either is: in the gradient it decides what is clamped away.
template <class V>
STRUCTOPS_HOST_DEVICE V larger_or_nan(V a, V b) {
  return (a > b) | (a != a) ? a : b;
}
template <class V>
STRUCTOPS_HOST_DEVICE V smaller_or_nan(V a, V b) {
  return (a < b) | (a != a) ? a : b;
}
template <class V>
STRUCTOPS_HOST_DEVICE V clamped(V v) {  // at 0 from below; NaN stays
  return larger(V{}, v);
}
template <class V>
STRUCTOPS_HOST_DEVICE V where_positive(V v, V then) {
  return v > V{} ? then : V{};
}

// The gradient g of a maximum (minimum) of a and b, added to theirs.
template <class V>
STRUCTOPS_HOST_DEVICE void pass_larger(V a, V b, V g, V& to_a, V& to_b) {
  const V share = a == b ? g / 2 : g;
  to_a += a < b ? V{} : share;
  to_b += a > b ? V{} : share;
}
template <class V>
STRUCTOPS_HOST_DEVICE void pass_smaller(V a, V b, V g, V& to_a, V& to_b) {
  pass_larger(a, b, g, to_b, to_a);
}

// A NaN coordinate makes the area NaN, hence every value of the box, so minima and maxima need not keep it.
template <class A>
STRUCTOPS_HOST_DEVICE Side<A> side_of(BoxFormat format, const A* box, A angle) {
  if (format == BoxFormat::xyxy) {
    const A x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    return {x1, y1, x2, y2, (x2 - x1) * (y2 - y1), angle};
  }
  const A x = box[0], y = box[1], width = box[2], height = box[3];
  const bool centred = format == BoxFormat::cxcywh;
  const A right = centred ? width / 2 : width, below = centred ? height / 2 : height;
  const A x1 = centred ? x - right : x, y1 = centred ? y - below : y, x2 = x + right, y2 = y + below;
  const bool numbers = x1 == x1 && y1 == y1 && x2 == x2 && y2 == y2;
  return {x1, y1, x2, y2, numbers ? width * height : (x1 - x1) + (y1 - y1) + (x2 - x2) + (y2 - y2), angle};
}

template <BoxIouKind kKind, class A, class V>
STRUCTOPS_HOST_DEVICE V pair_value(const Side<V>& a, const Side<V>& b, A eps) {
  const V width = clamped<V>(smaller(a.x2, b.x2) - larger(a.x1, b.x1));
  const V height = clamped<V>(smaller(a.y2, b.y2) - larger(a.y1, b.y1));
  const V intersection = width * height, joint = a.area + b.area - intersection;
  const V iou = intersection / joint;
  if constexpr (kKind == BoxIouKind::plain) return iou;
  const V hull_width = clamped<V>(larger(a.x2, b.x2) - smaller(a.x1, b.x1));
  const V hull_height = clamped<V>(larger(a.y2, b.y2) - smaller(a.y1, b.y1));
  if constexpr (kKind == BoxIouKind::generalized) {
    const V hull = hull_width * hull_height;
    return iou - (hull - joint) / hull;
  }
  const V diagonal = hull_width * hull_width + hull_height * hull_height + eps;
  const V dx = (a.x1 + a.x2) / 2 - (b.x1 + b.x2) / 2, dy = (a.y1 + a.y2) / 2 - (b.y1 + b.y2) / 2;
  const V by_distance = iou - (dx * dx + dy * dy) / diagonal;
  if constexpr (kKind == BoxIouKind::distance) return by_distance;
  const V turn = a.angle - b.angle, aspect = A(kAspectScale) * (turn * turn);
  const V alpha = aspect / (A(1) - iou + aspect + eps);
  return by_distance - alpha * aspect;
}

// Adds what the gradient g of the pair's value gives to either box.
template <BoxIouKind kKind, class A, class V>
STRUCTOPS_HOST_DEVICE void pair_gradient(const Side<V>& a, const Side<V>& b, V g, A eps, SideGradient<V>& to_a,
                                         SideGradient<V>& to_b) {
  const V open_width = smaller_or_nan(a.x2, b.x2) - larger_or_nan(a.x1, b.x1);
  const V open_height = smaller_or_nan(a.y2, b.y2) - larger_or_nan(a.y1, b.y1);
  const V width = clamped(open_width), height = clamped(open_height);
  const V intersection = width * height, joint = a.area + b.area - intersection;
  const V iou = intersection / joint;
  V to_joint = -g * (iou / joint);
  if constexpr (kKind != BoxIouKind::plain) {
    const V hull_open_width = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
    const V hull_open_height = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
    const V hull_width = clamped(hull_open_width), hull_height = clamped(hull_open_height);
    V to_hull_width, to_hull_height;
    if constexpr (kKind == BoxIouKind::generalized) {
      const V hull = hull_width * hull_height, to_outside = -g / hull;
      const V to_hull = g * ((hull - joint) / hull / hull) + to_outside;
      to_joint -= to_outside;
      to_hull_width = to_hull * hull_height;
      to_hull_height = to_hull * hull_width;
    } else {
      const V diagonal = hull_width * hull_width + hull_height * hull_height + eps;
      const V dx = (a.x1 + a.x2) / 2 - (b.x1 + b.x2) / 2, dy = (a.y1 + a.y2) / 2 - (b.y1 + b.y2) / 2;
      const V to_distance = -g / diagonal, to_diagonal = g * ((dx * dx + dy * dy) / diagonal / diagonal);
      to_hull_width = to_diagonal * (2 * hull_width);
      to_hull_height = to_diagonal * (2 * hull_height);
      // Half of the centre's gradient to either corner.
      const V to_x = to_distance * dx, to_y = to_distance * dy;
      to_a.x1 += to_x, to_a.x2 += to_x, to_b.x1 -= to_x, to_b.x2 -= to_x;
      to_a.y1 += to_y, to_a.y2 += to_y, to_b.y1 -= to_y, to_b.y2 -= to_y;
    }
    to_hull_width = where_positive(hull_open_width, to_hull_width);
    to_hull_height = where_positive(hull_open_height, to_hull_height);
    pass_larger<V>(a.x2, b.x2, to_hull_width, to_a.x2, to_b.x2);
    pass_larger<V>(a.y2, b.y2, to_hull_height, to_a.y2, to_b.y2);
    pass_smaller<V>(a.x1, b.x1, -to_hull_width, to_a.x1, to_b.x1);
    pass_smaller<V>(a.y1, b.y1, -to_hull_height, to_a.y1, to_b.y1);
    if constexpr (kKind == BoxIouKind::complete) {  // alpha is a constant, as its authors and torchvision have it
      const V turn = a.angle - b.angle, aspect = A(kAspectScale) * (turn * turn);
      const V alpha = aspect / (A(1) - iou + aspect + eps);
      const V to_turn = -g * alpha * (A(kAspectScale) * (2 * turn));
      to_a.angle += to_turn;
      to_b.angle -= to_turn;
    }
  }
  to_a.area += to_joint;
  to_b.area += to_joint;
  const V to_intersection = g / joint - to_joint;
  const V to_width = where_positive<V>(open_width, to_intersection * height);
  const V to_height = where_positive<V>(open_height, to_intersection * width);
  pass_smaller<V>(a.x2, b.x2, to_width, to_a.x2, to_b.x2);
  pass_smaller<V>(a.y2, b.y2, to_height, to_a.y2, to_b.y2);
  pass_larger<V>(a.x1, b.x1, -to_width, to_a.x1, to_b.x1);
  pass_larger<V>(a.y1, b.y1, -to_height, to_a.y1, to_b.y1);
}

// grad [4] of a box [4] in its own format.
template <class A>
STRUCTOPS_HOST_DEVICE void gradient_of_box(BoxIouKind kind, BoxFormat format, const A* box, const SideGradient<A>& sum,
                                           A* grad) {
  const bool corners = format == BoxFormat::xyxy;
  const A width = corners ? box[2] - box[0] : box[2], height = corners ? box[3] - box[1] : box[3];
  A to_width = sum.area * height, to_height = sum.area * width;
  if (kind == BoxIouKind::complete) {
    const A ratio = width / height, to_ratio = sum.angle / (ratio * ratio + 1);
    to_width += to_ratio / height;
    to_height -= to_ratio * (ratio / height);
  }
  if (corners) {
    grad[0] = sum.x1 - to_width, grad[1] = sum.y1 - to_height;
    grad[2] = sum.x2 + to_width, grad[3] = sum.y2 + to_height;
    return;
  }
  grad[0] = sum.x1 + sum.x2, grad[1] = sum.y1 + sum.y2;
  const bool centred = format == BoxFormat::cxcywh;
  grad[2] = (centred ? (sum.x2 - sum.x1) / 2 : sum.x2) + to_width;
  grad[3] = (centred ? (sum.y2 - sum.y1) / 2 : sum.y2) + to_height;
}
