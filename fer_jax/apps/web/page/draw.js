// Faces drawn over their picture as fer_jax.apps.drawing draws them: box, emoji, emotion, probabilities as bars.

const SMALLEST = 960, LARGEST = 1920; // pixels of the longer side
const SEEN = 10; // pixels of the page
const UNSURE = '#5f6368';
const EMOJI = '"Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", "DejaVu Sans", sans-serif';
const LETTERS = 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

// Sizes the canvas for a picture and draws it; `source` may be null where the browser cannot show it.
export function drawPicture(canvas, source, width, height) {
  const longer = Math.max(width, height);
  const scale = Math.min(Math.max(longer, SMALLEST), LARGEST) / longer;
  const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext('2d');
  if (source) {
    context.fillStyle = '#fff'; // what is transparent lies on white
    context.fillRect(0, 0, w, h);
    context.drawImage(source, 0, 0, w, h);
  } else {
    context.fillStyle = '#8a8f98';
    context.fillRect(0, 0, w, h);
  }
  return scale;
}

export function drawFaces(canvas, faces, scale, colours) {
  const context = canvas.getContext('2d');
  // Letters of a 56th of the picture, and of SEEN pixels at least as the page shows it: a phone makes it small.
  const shown = canvas.clientWidth ? canvas.width / canvas.clientWidth : 1;
  const unit = Math.round(Math.max(12, Math.max(canvas.width, canvas.height) / 56, SEEN * shown));
  const taken = [];
  const placed = faces.map((face) => ({ face, box: face.box.map((value) => value * scale) }))
    .sort((one, other) => other.box[2] * other.box[3] - one.box[2] * one.box[3]);
  for (const { face, box } of placed) outline(context, face, box, unit, colours, taken);
  for (const { face, box } of placed) title(context, face, box, unit, colours, taken);
  for (const { face, box } of placed) bars(context, face, box, unit, colours, taken);
}

export function shares(face) {
  return face.smoothed ?? face.probabilities;
}

export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function outline(context, face, [left, top, width, height], unit, colours, taken) {
  context.lineJoin = 'round';
  for (const [line, colour] of [[unit / 3, 'rgb(0 0 0 / 45%)'], [unit / 5, colourOf(face, colours)]]) {
    context.lineWidth = line;
    context.strokeStyle = colour;
    context.strokeRect(left, top, width, height);
  }
  taken.push([left, top, left + width, top + height]);
}

function title(context, face, [left, top, width, height], unit, colours, taken) {
  const share = shares(face)[face.emotion];
  let words = `${face.emotion}${face.unsure ? '?' : ''} ${percent(share)}`;
  if (face.person) words = `${face.person}: ${words}`;
  if (width < 4 * unit && face.emoji) words = face.unsure ? '?' : '';
  const pad = unit / 3, tall = 1.7 * unit;
  context.font = `${1.25 * unit}px ${EMOJI}`;
  const emojiWidth = face.emoji ? context.measureText(face.emoji).width + pad : 0;
  context.font = `600 ${unit}px ${LETTERS}`;
  const wide = emojiWidth + context.measureText(words).width + 2 * pad;
  const x = Math.max(0, Math.min(left - unit / 10, context.canvas.width - wide));
  const own = [left, top, left + width, top + height];
  const tags = [top - tall, top + height, Math.max(0, top)].map((y) => [x, y, x + wide, y + tall]);
  const tag = tags.find((place) => isFree(place, context.canvas, taken, own)) ?? tags[2];
  context.fillStyle = colourOf(face, colours);
  context.fillRect(tag[0], tag[1], wide, tall);
  context.fillStyle = 'rgb(0 0 0 / 30%)'; // so that white letters can be read on every colour
  context.fillRect(tag[0], tag[1], wide, tall);
  context.fillStyle = '#fff';
  context.textBaseline = 'middle';
  context.textAlign = 'left';
  context.fillText(words, tag[0] + pad + emojiWidth, tag[1] + tall / 2);
  context.font = `${1.25 * unit}px ${EMOJI}`;
  if (face.emoji) context.fillText(face.emoji, tag[0] + pad, tag[1] + tall / 2);
  taken.push(tag);
}

// A panel beside the face; where all is taken narrow bars in its box.
function bars(context, face, [left, top, width, height], unit, colours, taken) {
  const entries = Object.entries(shares(face));
  context.font = `${0.95 * unit}px ${LETTERS}`;
  const names = Math.max(...entries.map(([name]) => context.measureText(name).width));
  const wide = names + 8.3 * unit, tall = (1.4 * entries.length + 0.6) * unit, gap = unit / 2;
  const y = Math.max(0, Math.min(top, context.canvas.height - tall));
  const x = Math.max(0, Math.min(left, context.canvas.width - wide));
  const panel = [[left + width + gap, y], [left - gap - wide, y], [x, top + height + 2 * unit], [x, top - 2.2 * unit - tall]]
    .map(([a, b]) => [a, b, a + wide, b + tall])
    .find((place) => width >= 3 * unit && isFree(place, context.canvas, taken));
  if (!panel) return narrowBars(context, entries, [left, top, width, height], colours);
  taken.push(panel);
  context.fillStyle = 'rgb(20 22 26 / 78%)';
  context.beginPath();
  context.roundRect(panel[0], panel[1], wide, tall, unit / 3);
  context.fill();
  entries.forEach(([name, share], row) => {
    const middle = panel[1] + (1 + 1.4 * row) * unit, start = panel[0] + names + 0.9 * unit;
    context.fillStyle = '#fff';
    context.textAlign = 'right';
    context.fillText(name, start - 0.4 * unit, middle);
    context.fillText(percent(share), panel[2] - 0.4 * unit, middle);
    context.fillStyle = 'rgb(255 255 255 / 18%)';
    context.fillRect(start, middle - 0.4 * unit, 4 * unit, 0.8 * unit);
    context.fillStyle = colours[name];
    context.fillRect(start, middle - 0.4 * unit, 4 * unit * share, 0.8 * unit);
  });
}

function narrowBars(context, entries, [left, top, width, height], colours) {
  const tall = height / 4, step = width / entries.length, bottom = top + height;
  context.fillStyle = 'rgb(20 22 26 / 45%)';
  context.fillRect(left, bottom - tall, width, tall);
  entries.forEach(([name, share], index) => {
    context.fillStyle = colours[name];
    context.fillRect(left + index * step, bottom - share * tall, Math.max(1, step - 1), share * tall);
  });
}

function colourOf(face, colours) {
  return face.unsure ? UNSURE : colours[face.emotion];
}

function isFree(place, canvas, taken, own = null) {
  if (place[0] < 0 || place[1] < 0 || place[2] > canvas.width || place[3] > canvas.height) return false;
  return taken.every((other) => (own && other.every((value, index) => value === own[index]))
    || place[2] <= other[0] || place[0] >= other[2] || place[3] <= other[1] || place[1] >= other[3]);
}
