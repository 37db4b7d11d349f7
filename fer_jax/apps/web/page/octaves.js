// A picture at many sizes, as fer_jax.faces.pyramid makes them.

import { FILTERS, halve, makePicture, resize, roundEven, transform } from './pixels.js';

export const WINDOW = 12, STRIDE = 2;
const GREY = 127; // what is outside a picture

export class Octaves {
  // The picture and its halves, quarters, …, made when needed.
  constructor(picture) {
    Object.assign(this, { width: picture.width, height: picture.height, pictures: [picture] });
  }

  level(scale) {
    const [width, height] = [this.width, this.height].map((side) => STRIDE * Math.max(roundEven(side * scale / STRIDE), 1));
    return resize(this.atLeast(scale).picture, width, height, FILTERS.bilinear);
  }

  // The square [left, top, right, bottom], turned about its middle by `tilt` to the right; grey outside.
  crop([left, top, right, bottom], size, tilt = 0) {
    const { picture, shrunk } = this.atLeast(size / Math.max(right - left, 1e-3)), step = (right - left) / size;
    const across = [step * Math.cos(tilt) / shrunk[0], step * Math.sin(tilt) / shrunk[1]];
    const down = [-step * Math.sin(tilt) / shrunk[0], step * Math.cos(tilt) / shrunk[1]];
    const start = [(left + right) / 2, (top + bottom) / 2]
      .map((middle, axis) => middle / shrunk[axis] - (across[axis] + down[axis]) * size / 2);
    return transform(picture, size, [0, 1].flatMap((axis) => [across[axis], down[axis], start[axis]]), false, GREY);
  }

  // The smallest octave that is no smaller than `scale`; and how many of the picture's pixels one of its has.
  atLeast(scale) {
    const octave = Math.max(Math.floor(-Math.log2(scale)), 0);
    for (let last = this.pictures.at(-1); this.pictures.length <= octave && Math.min(last.width, last.height) > 1;) {
      last = halve(last);
      this.pictures.push(last);
    }
    const picture = this.pictures[Math.min(octave, this.pictures.length - 1)];
    return { picture, shrunk: [this.width / picture.width, this.height / picture.height] };
  }
}

// Scales at which faces are as large as the window, each `factor` of the last; `look` as in fer_jax.faces.mtcnn.
export function scales({ width, height }, look) {
  const shorter = Math.min(width, height), largest = shorter * (1 + 2 * look.margin);
  const smallest = Math.max(look.min_face, look.min_share * shorter);
  const first = Math.min(WINDOW / smallest, Math.sqrt(look.most_pixels / (height * width)));
  const steps = Math.log(WINDOW / largest / first) / Math.log(look.factor);
  return Array.from({ length: Math.max(Math.floor(steps + 1e-6) + 1, 0) }, (_, step) => first * look.factor ** step);
}

// The picture at a scale with a grey rim, the rim [x, y], and the exact scale [x, y].
export function framed(octaves, scale, margin) {
  const level = octaves.level(scale), least = STRIDE * roundEven(margin * WINDOW / STRIDE);
  const rim = [level.width, level.height].map((side) => Math.max(least, -STRIDE * Math.floor((side - WINDOW) / (2 * STRIDE))));
  const picture = makePicture(level.width + 2 * rim[0], level.height + 2 * rim[1], GREY);
  for (let y = 0; y < level.height; y += 1) {
    const row = level.data.subarray(3 * y * level.width, 3 * (y + 1) * level.width);
    picture.data.set(row, 3 * ((y + rim[1]) * picture.width + rim[0]));
  }
  return { picture, rim, exact: [level.width / octaves.width, level.height / octaves.height] };
}
