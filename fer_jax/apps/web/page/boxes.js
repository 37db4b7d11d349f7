// Boxes as [left, top, right, bottom], as in fer_jax.faces.boxes; candidates are { box, score, … }.

// Those that greedy non-maximum suppression keeps, the best first. `bySmaller`: shares are of the smaller box.
export function keepBest(candidates, threshold, atLeast = 0, bySmaller = false) {
  let left = candidates.filter(({ score }) => score >= Math.fround(atLeast)).sort((one, other) => other.score - one.score);
  const kept = [];
  while (left.length) {
    const [best, ...others] = left, area = areaOf(best.box);
    kept.push(best);
    left = others.filter(({ box }) => {
      const shared = areaOf([0, 1, 2, 3].map((edge) => (edge < 2 ? Math.max : Math.min)(best.box[edge], box[edge])));
      return shared <= threshold * (bySmaller ? Math.min(area, areaOf(box)) : area + areaOf(box) - shared);
    });
  }
  return kept;
}

// Every edge moved by its share of the box's width or height.
export function moved(box, edges) {
  const sides = [box[2] - box[0], box[3] - box[1]];
  return box.map((value, edge) => value + edges[edge] * sides[edge % 2]);
}

// The square about the box's centre whose side is the longer one.
export function square([left, top, right, bottom]) {
  const half = Math.max(right - left, bottom - top) / 2, x = (left + right) / 2, y = (top + bottom) / 2;
  return [x - half, y - half, x + half, y + half];
}

function areaOf([left, top, right, bottom]) {
  return Math.max(right - left, 0) * Math.max(bottom - top, 0);
}
