// People followed from look to look, as fer_jax.apps.tracking does: numbers that stay, probabilities smoothed.

const PATIENCE = 1, LEAST = 0.2; // seconds; overlap under which two boxes are not one person's

export class Tracker {
  // smoothing: time constant in seconds of the mean of a person's probabilities.
  constructor(smoothing) {
    Object.assign(this, { smoothing, people: [], looked: -Infinity, count: 0 });
  }

  // The faces, each with its person's number and the smoothed probabilities (arrays).
  update(time, faces) {
    const since = Math.min(this.looked, time - PATIENCE);
    this.people = this.people.filter(({ seen }) => seen >= since);
    this.looked = time;
    const known = [...this.people];
    const partners = match(faces.map(({ box }) => box), known.map(({ box }) => box));
    return faces.map(({ box, probabilities }, at) => {
      let person = known[partners[at]];
      if (person) {
        const share = this.smoothing ? 1 - Math.exp(-(time - person.seen) / this.smoothing) : 1;
        person.probabilities = person.probabilities.map((before, index) => before + share * (probabilities[index] - before));
      } else {
        this.count += 1;
        person = { number: this.count, probabilities };
        this.people.push(person);
      }
      Object.assign(person, { box, seen: time });
      return { person: person.number, smoothed: person.probabilities };
    });
  }
}

// For each box the index of its partner among the others, so that the sum of overlaps is the largest; else undefined.
export function match(boxes, others) {
  const size = Math.max(boxes.length, others.length);
  const overlaps = Array.from({ length: size }, (_, row) => Array.from({ length: size }, (__, column) => {
    const shared = boxes[row] && others[column] ? overlap(boxes[row], others[column]) : 0;
    return shared >= LEAST ? shared : 0;
  }));
  return assign(overlaps).slice(0, boxes.length).map((column, row) => (overlaps[row][column] > 0 ? column : undefined));
}

// Intersection over union of boxes as left, top, width, height.
function overlap(one, other) {
  const sides = [0, 1].map((axis) => Math.max(
    Math.min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - Math.max(one[axis], other[axis]), 0,
  ));
  const shared = sides[0] * sides[1];
  return shared / Math.max(one[2] * one[3] + other[2] * other[3] - shared, 1e-9);
}

// The column of each row of a square table whose sum is the largest (Kuhn 1955, with potentials: shortest paths).
function assign(gains) {
  const size = gains.length, rows = new Array(size + 1).fill(0), columns = new Array(size + 1).fill(0);
  const owner = new Array(size + 1).fill(0), before = new Array(size + 1).fill(0); // rows and columns from 1; 0 is none
  for (let row = 1; row <= size; row += 1) {
    const least = new Array(size + 1).fill(Infinity), used = new Array(size + 1).fill(false);
    let column = 0;
    owner[0] = row;
    do {
      used[column] = true;
      const from = owner[column];
      let delta = Infinity, next = 0;
      for (let to = 1; to <= size; to += 1) {
        if (used[to]) continue;
        const cost = -gains[from - 1][to - 1] - rows[from] - columns[to];
        if (cost < least[to]) [least[to], before[to]] = [cost, column];
        if (least[to] < delta) [delta, next] = [least[to], to];
      }
      for (let to = 0; to <= size; to += 1) {
        if (used[to]) {
          rows[owner[to]] += delta;
          columns[to] -= delta;
        } else {
          least[to] -= delta;
        }
      }
      column = next;
    } while (owner[column]);
    for (; column; column = before[column]) owner[column] = owner[before[column]];
  }
  const chosen = new Array(size);
  for (let column = 1; column <= size; column += 1) chosen[owner[column] - 1] = column - 1;
  return chosen;
}
