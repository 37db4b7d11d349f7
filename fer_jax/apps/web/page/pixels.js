// What Pillow does to pictures, to the last bit: so faces look here as they look to the server, and to training.
// A picture is { width, height, data }: bytes, red, green and blue of each pixel, row by row.

const BITS = 22; // of the weights' fractions in Pillow's resampling
export const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

export function makePicture(width, height, fill = 0) {
  return { width, height, data: new Uint8Array(width * height * 3).fill(fill) };
}

// Image.resize: first along rows, then along columns, each rounded to bytes.
export function resize(picture, width, height, filter) {
  const wide = width === picture.width ? picture : resampleRows(picture, width, filter);
  return height === picture.height ? wide : turn(resampleRows(turn(wide), height, filter));
}

// Image.reduce(2): means of 2x2 pixels, at odd edges of what is there.
export function halve({ width, height, data }) {
  const half = makePicture((width + 1) >> 1, (height + 1) >> 1);
  for (let y = 0, out = 0; y < half.height; y += 1) {
    const rows = 2 * y + 1 < height ? 2 : 1;
    for (let x = 0; x < half.width; x += 1) {
      const columns = 2 * x + 1 < width ? 2 : 1, count = rows * columns;
      for (let channel = 0; channel < 3; channel += 1, out += 1) {
        let sum = count >> 1;
        for (let row = 0; row < rows; row += 1) {
          for (let column = 0; column < columns; column += 1) sum += data[3 * ((2 * y + row) * width + 2 * x + column) + channel];
        }
        half.data[out] = Math.floor(sum / count);
      }
    }
  }
  return half;
}

// Image.transform(AFFINE): the pixel about (x, y) shows the place (a x + b y + c, d x + e y + f); `outside` elsewhere.
export function transform(picture, size, [a, b, c, d, e, f], cubic, outside = 0) {
  const result = makePicture(size, size, outside), sample = cubic ? cubicAt : linearAt;
  for (let y = 0; y < size; y += 1) {
    for (let x = 0; x < size; x += 1) {
      const left = a * (x + 0.5) + b * (y + 0.5) + c, top = d * (x + 0.5) + e * (y + 0.5) + f;
      if (left < 0 || left >= picture.width || top < 0 || top >= picture.height) continue;
      sample(picture, left - 0.5, top - 0.5, result.data, 3 * (y * size + x));
    }
  }
  return result;
}

// ImageFilter.GaussianBlur: three box blurs each way.
export function blur(picture, deviation) {
  const variance = deviation * deviation / 3, whole = Math.floor((Math.sqrt(12 * variance + 1) - 1) / 2);
  const rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)));
  const radius = Math.fround(whole + rest);
  if (!radius) return picture;
  let blurred = picture;
  for (let way = 0; way < 2; way += 1) {
    for (let pass = 0; pass < 3; pass += 1) blurred = blurRows(blurred, radius);
    blurred = turn(blurred);
  }
  return blurred;
}

// ITU-R BT.601 in all three channels, as fer_jax.data.stored.fit_images makes pictures grey.
export function grey(picture) {
  const result = makePicture(picture.width, picture.height), { data } = picture;
  for (let at = 0; at < data.length; at += 3) {
    result.data.fill(roundEven(0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]), at, at + 3);
  }
  return result;
}

// The part from (left, top) on; where it reaches over the edge, the edge goes on.
export function patch(picture, left, top, width, height) {
  const result = makePicture(width, height);
  for (let y = 0, out = 0; y < height; y += 1) {
    const row = clamp(top + y, picture.height) * picture.width;
    for (let x = 0; x < width; x += 1, out += 3) {
      const at = 3 * (row + clamp(left + x, picture.width));
      for (let channel = 0; channel < 3; channel += 1) result.data[out + channel] = picture.data[at + channel];
    }
  }
  return result;
}

// To the nearest whole number, halves to the even one, as Python rounds.
export function roundEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function clamp(index, length) {
  return Math.min(Math.max(index, 0), length - 1);
}

function weights(from, to, { support, weight }) {
  const scale = from / to, stretch = Math.max(scale, 1), reach = support * stretch;
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const start = Math.max(Math.trunc(centre - reach + 0.5), 0), end = Math.min(Math.trunc(centre + reach + 0.5), from);
    const shares = [];
    for (let at = start; at < end; at += 1) shares.push(weight((at - centre + 0.5) / stretch));
    const sum = shares.reduce((total, share) => total + share, 0);
    return { start, shares: Float64Array.from(shares, (share) => {
      const fraction = share / sum * 2 ** BITS;
      return Math.trunc(fraction + (fraction < 0 ? -0.5 : 0.5));
    }) };
  });
}

function resampleRows({ width, height, data }, wanted, filter) {
  const result = makePicture(wanted, height), places = weights(width, wanted, filter);
  for (let y = 0, out = 0; y < height; y += 1) {
    for (const { start, shares } of places) {
      let at = 3 * (y * width + start), red = 2 ** (BITS - 1), green = red, blue = red;
      for (const share of shares) {
        red += share * data[at];
        green += share * data[at + 1];
        blue += share * data[at + 2];
        at += 3;
      }
      result.data[out] = byte(red >> BITS);
      result.data[out + 1] = byte(green >> BITS);
      result.data[out + 2] = byte(blue >> BITS);
      out += 3;
    }
  }
  return result;
}

function byte(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

function turn({ width, height, data }) {
  const result = makePicture(height, width);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 3 * (y * width + x), out = 3 * (x * height + y);
      for (let channel = 0; channel < 3; channel += 1) result.data[out + channel] = data[at + channel];
    }
  }
  return result;
}

function blurRows({ width, height, data }, radius) {
  const result = makePicture(width, height), reach = Math.trunc(radius);
  const inner = Math.trunc(Math.fround(2 ** 24 / Math.fround(radius * 2 + 1))), outer = Math.trunc((2 ** 24 - (2 * reach + 1) * inner) / 2);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        const pixel = (column) => data[3 * (y * width + clamp(column, width)) + channel];
        let sum = 0;
        for (let step = -reach; step <= reach; step += 1) sum += pixel(x + step);
        const whole = sum * inner + (pixel(x - reach - 1) + pixel(x + reach + 1)) * outer + 2 ** 23;
        result.data[3 * (y * width + x) + channel] = Math.floor(whole / 2 ** 24);
      }
    }
  }
  return result;
}

function linearAt({ width, height, data }, x, y, out, at) {
  const left = Math.floor(x), top = Math.floor(y), right = x - left, down = y - top;
  const columns = [3 * clamp(left, width), 3 * clamp(left + 1, width)];
  const row = 3 * width * clamp(top, height), next = top + 1 < height ? 3 * width * (top + 1) : row;
  for (let channel = 0; channel < 3; channel += 1) {
    const mix = (start) => {
      const one = data[start + columns[0] + channel];
      return one + (data[start + columns[1] + channel] - one) * right;
    };
    const above = mix(row), below = next === row ? above : mix(next);
    out[at + channel] = Math.trunc(above + (below - above) * down);
  }
}

function cubicAt({ width, height, data }, x, y, out, at) {
  const left = Math.floor(x), top = Math.floor(y), right = x - left, down = y - top;
  const columns = [-1, 0, 1, 2].map((step) => 3 * clamp(left + step, width));
  const line = (row, channel) => cubic(...columns.map((column) => data[3 * width * row + column + channel]), right);
  for (let channel = 0; channel < 3; channel += 1) {
    const lines = [line(clamp(top - 1, height), channel)];
    for (let step = 0; step < 3; step += 1) {
      const row = top + step;
      lines.push(row >= 0 && row < height ? line(row, channel) : lines[step]);
    }
    out[at + channel] = Math.trunc(byte(cubic(...lines, down)));
  }
}

function cubic(first, second, third, fourth, share) {
  const one = third - first, two = 2 * (first - second) + third - fourth, three = fourth - third + second - first;
  return second + share * (one + share * (two + share * three));
}
