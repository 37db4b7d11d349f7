// Faces brought to the networks, as fer_jax.faces.align and fer_jax.data.stored do.

import { blur, FILTERS, grey, patch, resize, transform } from './pixels.js';

// The bytes [size, size, channels] that a network gets of a face. frame: how the run's data shows faces.
export function toNetwork(octaves, face, { frame, size, channels }) {
  let picture = frame.kind === 'aligned' ? warp(octaves, face.points, frame.template, frame.size)
    : cutSquare(octaves, face.box, frame.template, frame.share, size);
  if (channels === 1) picture = grey(picture);
  if (picture.width !== size) picture = resize(picture, size, size, FILTERS.lanczos);
  return channels === 3 ? picture.data : picture.data.filter((_, at) => at % 3 === 0);
}

// In float32 where NumPy computes so: a place that is off by a millionth can round a pixel otherwise.
function cutSquare(octaves, [left, top, width, height], template, share, size) {
  const { fround } = Math, side = fround(fround(share) * Math.max(width, height));
  const corner = [[left, width], [top, height]].map(([start, length]) => fround(fround(start + length / 2) - side / 2));
  return warp(octaves, template.map((point) => point.map((value, axis) => corner[axis] + side * value)), template, size);
}

// Turned, scaled and shifted so that the points come to lie as near the template as can be.
function warp(octaves, points, template, size) {
  const [along, aside, x, y] = similarity(points, template.map((point) => point.map((value) => size * value)));
  const scale = Math.hypot(along, aside), { picture, shrunk } = octaves.atLeast(scale);
  const [c, s] = [along / scale ** 2, aside / scale ** 2]; // of the way back
  const rows = [[c, s, -(c * x + s * y)], [-s, c, s * x - c * y]].map((row, axis) => row.map((value) => value / shrunk[axis]));
  const corners = rows.map(([a, b, start]) => [start, start + a * size, start + b * size, start + (a + b) * size]);
  const low = corners.map((places) => Math.floor(Math.min(...places)) - 4);
  const high = corners.map((places) => Math.ceil(Math.max(...places)) + 4);
  let part = patch(picture, low[0], low[1], high[0] - low[0], high[1] - low[1]);
  const step = Math.hypot(rows[0][0], rows[1][0]);
  if (step > 1) part = blur(part, (step - 1) / 2);
  return transform(part, size, rows.flatMap(([a, b, start], axis) => [a, b, start - low[axis]]), true);
}

// [along, aside, x, y] that moves (u, v) to (along u - aside v + x, aside u + along v + y), by least squares.
function similarity(from, to) {
  const middle = (points) => [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
  const start = middle(from), end = middle(to);
  let along = 0, aside = 0, square = 0;
  from.forEach((point, at) => {
    const [u, v] = [point[0] - start[0], point[1] - start[1]], [p, q] = [to[at][0] - end[0], to[at][1] - end[1]];
    along += u * p + v * q;
    aside += u * q - v * p;
    square += u * u + v * v;
  });
  along /= square;
  aside /= square;
  return [along, aside, end[0] - along * start[0] + aside * start[1], end[1] - aside * start[0] - along * start[1]];
}
