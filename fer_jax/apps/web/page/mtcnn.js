// MTCNN as fer_jax.faces.mtcnn looks for faces in photographs, one picture at a time.

import { keepBest, moved, square } from './boxes.js';
import { framed, scales, STRIDE, WINDOW } from './octaves.js';

const TURNS = 3, TILTED = 0.1; // how often a crop is turned to the face, and from which tilt on (radians)
const BATCHES = { rnet: 64, onet: 16 }, SIDES = { rnet: 24, onet: 48 };

export class Mtcnn {
  // run(name, bytes, shape): a network's outputs by name, flat; look: settings; template: the upright face's points.
  constructor(run, look, template) {
    Object.assign(this, { network: run, look });
    const middle = [0, 1].map((axis) => template.reduce((sum, point) => sum + point[axis], 0) / template.length);
    this.upright = template.map(([x, y]) => [x - middle[0], y - middle[1]]);
  }

  // The faces, the surest first: { box: [left, top, width, height], points, score }.
  async detect(octaves) {
    const [, second, third] = this.look.thresholds;
    let found = await this.propose(octaves);
    const refined = await this.lookAt('rnet', octaves, found.map(({ box }) => box));
    found = keepBest(found.map(({ box }, at) => ({ box: moved(box, refined[at].edges), score: refined[at].score })), 0.7, second);
    const squares = found.map(({ box }) => square(box)), seen = await this.lookAt('onet', octaves, squares);
    const faces = keepBest(squares.map((box, at) => ({
      box: moved(box, seen[at].edges), score: seen[at].score, points: placed(seen[at].points, box, 0),
    })), 0.7, third, true);
    await this.lookUpright(octaves, faces, third);
    return faces.map(({ box: [left, top, right, bottom], points, score }) => ({
      box: [left, top, right - left, bottom - top].map(Math.fround), points: points.map((point) => point.map(Math.fround)), score,
    }));
  }

  // Squares that may hold faces.
  async propose(octaves) {
    const least = Math.fround(this.look.thresholds[0]), all = [];
    for (const scale of scales(octaves, this.look)) {
      const { picture, rim, exact } = framed(octaves, scale, this.look.margin), found = [];
      const { scores, edges } = await this.network('pnet', picture.data, [1, picture.height, picture.width, 3]);
      const columns = (picture.width - WINDOW) / STRIDE + 1;
      scores.forEach((score, at) => {
        if (score <= least) return;
        const place = [STRIDE * (at % columns) - rim[0], STRIDE * Math.floor(at / columns) - rim[1]];
        const box = [0, WINDOW].flatMap((side) => place.map((start, axis) => (start + side) / exact[axis]));
        found.push({ box, score, edges: edges.subarray(4 * at, 4 * at + 4) });
      });
      all.push(...keepBest(found, 0.5));
    }
    const candidates = all.map(({ box, score, edges }) => ({ box: moved(box, edges), score }));
    return keepBest(candidates, 0.7).map(({ box, score }) => ({ box: square(box), score }));
  }

  // What R-Net or O-Net says of squares of the picture, turned by tilts.
  async lookAt(name, octaves, boxes, tilts = []) {
    const side = SIDES[name], most = BATCHES[name], said = [];
    for (let start = 0; start < boxes.length; start += most) {
      const batch = boxes.slice(start, start + most), pixels = new Uint8Array(batch.length * side * side * 3);
      batch.forEach((box, at) => pixels.set(octaves.crop(box, side, tilts[start + at]).data, at * side * side * 3));
      const { scores, edges, points } = await this.network(name, pixels, [batch.length, side, side, 3]);
      batch.forEach((_, at) => said.push({
        score: scores[at], edges: edges.subarray(4 * at, 4 * at + 4), points: points?.subarray(10 * at, 10 * at + 10),
      }));
    }
    return said;
  }

  // Points from crops that are turned as the face is, where O-Net says that it is tilted.
  async lookUpright(octaves, faces, least) {
    const turned = faces.map(() => 0), squares = faces.map(({ box }) => square(box));
    for (let turn = 0; turn < TURNS; turn += 1) {
      const tilts = faces.map(({ points }) => this.tilt(points));
      const again = [...faces.keys()].filter((at) => Math.abs(tilts[at] - turned[at]) > TILTED);
      if (!again.length) return;
      const said = await this.lookAt('onet', octaves, again.map((at) => squares[at]), again.map((at) => tilts[at]));
      again.forEach((at, index) => {
        turned[at] = tilts[at];
        if (said[index].score >= Math.fround(least)) faces[at].points = placed(said[index].points, squares[at], tilts[at]);
      });
    }
  }

  // How far a face is turned to the right, in radians, by least squares.
  tilt(points) {
    let along = 0, aside = 0;
    points.forEach(([x, y], at) => {
      const [u, v] = this.upright[at];
      along += x * u + y * v;
      aside += y * u - x * v;
    });
    return Math.atan2(aside, along);
  }
}

// O-Net's points, in sides of a turned square, as places in the picture.
function placed(points, [left, top, right, bottom], tilt) {
  const cosine = Math.cos(tilt), sine = Math.sin(tilt), side = [right - left, bottom - top];
  return [0, 1, 2, 3, 4].map((at) => {
    const [x, y] = [0, 1].map((axis) => (points[2 * at + axis] - 0.5) * side[axis]);
    return [(left + right) / 2 + x * cosine - y * sine, (top + bottom) / 2 + x * sine + y * cosine];
  });
}
