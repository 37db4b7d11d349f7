// Reads pictures in the browser, off the page's thread: what /api/predict does elsewhere, with onnxruntime-web.
// Messages: { id, about, bytes } begins; { id, picture, session } reads; answers are { id, result } or { id, words }.

import { toNetwork } from './align.js';
import { Mtcnn } from './mtcnn.js';
import { Octaves } from './octaves.js';
import { makePicture } from './pixels.js';
import { Tracker } from './tracking.js';

const MOST_THREADS = 4, MOST_FACES = 32; // of a batch
let ort = null, about = null, sessions = null, detector = null;
let live = { name: '', tracker: null, began: 0, frames: 0 };
let before = Promise.resolve(); // one picture at a time

onmessage = ({ data: { id, ...message } }) => {
  before = before.then(() => (message.about ? begin(message) : read(message))).then(
    (result) => postMessage({ id, result }),
    (error) => postMessage({ id, words: error instanceof Words ? error.message : `The browser cannot read pictures here: ${error.message ?? error}` }),
  );
};

class Words extends Error {} // for people

async function begin({ about: told, bytes }) {
  about = told;
  const { runtime, detector: { look, template } } = about.in_browser;
  ort = await import(new URL(runtime.module, location.href));
  ort.env.wasm.wasmPaths = Object.fromEntries(['mjs', 'wasm'].map((part) => [part, new URL(runtime[part], location.href).href]));
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, MOST_THREADS) : 1;
  sessions = {};
  for (const [name, model] of Object.entries(bytes)) sessions[name] = await ort.InferenceSession.create(new Uint8Array(model));
  detector = new Mtcnn(run, look, template);
  // What engines put off until their first use is done now.
  const blank = new Octaves(makePicture(64, 64, 127));
  await detector.detect(blank);
  await classify(blank, [{ box: [8, 8, 48, 48], points: template.map((point) => point.map((value) => 64 * value)) }]);
}

async function run(name, pixels, shape) {
  const outputs = await sessions[name].run({ pixels: new ort.Tensor('uint8', pixels, shape) });
  return Object.fromEntries(Object.entries(outputs).map(([output, tensor]) => [output, tensor.data]));
}

async function read({ picture, session }) {
  const image = await decode(picture), began = performance.now(), octaves = new Octaves(image);
  let faces = await detector.detect(octaves);
  const more = faces.length > about.limits.faces;
  faces = faces.slice(0, about.limits.faces);
  const probabilities = await classify(octaves, faces);
  const found = faces.map((face, at) => ({ ...face, probabilities: probabilities[at] }));
  const content = { schema: about.schema, kind: session ? 'frame' : 'picture', source: '', width: image.width, height: image.height };
  if (more) content.more_faces = true;
  if (session) Object.assign(content, follow(session, found));
  else Object.assign(content, { bytes: picture.size, faces: found.map((face) => record(face, face.probabilities)) });
  return { ...content, milliseconds: performance.now() - began };
}

// The pixels as the browser decodes them: upright, colour profiles left aside, what is transparent on white.
async function decode(picture) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture, { colorSpaceConversion: 'none' });
  } catch {
    throw new Words('This browser cannot read that; an undamaged JPEG, PNG, WebP, GIF or BMP is wanted.');
  }
  const { width, height } = bitmap, most = about.limits.pixels;
  if (width * height > most) throw new Words(`The picture has more than ${most.toLocaleString('en')} pixels; up to ${most.toLocaleString('en')} are read.`);
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height), image = makePicture(width, height);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    image.data[to] = data[from];
    image.data[to + 1] = data[from + 1];
    image.data[to + 2] = data[from + 2];
  }
  return image;
}

// Each face's probabilities: the mean of all members'.
async function classify(octaves, faces) {
  const sums = faces.map(() => about.class_names.map(() => 0));
  let members = 0;
  for (const [name, how] of Object.entries(about.in_browser.networks)) {
    members += how.members;
    for (let start = 0; start < faces.length; start += MOST_FACES) {
      const batch = faces.slice(start, start + MOST_FACES), length = how.size * how.size * how.channels;
      const pixels = new Uint8Array(batch.length * length);
      batch.forEach((face, at) => pixels.set(toNetwork(octaves, face, how), at * length));
      const { probabilities } = await run(name, pixels, [batch.length, how.size, how.size, how.channels]);
      const classes = about.class_names.length;
      batch.forEach((_, at) => { // the network's mean weighs as much as it has members
        for (let index = 0; index < classes; index += 1) sums[start + at][index] += how.members * probabilities[at * classes + index];
      });
    }
  }
  return sums.map((shares) => shares.map((share) => share / members));
}

// Faces as people: they keep their numbers, and their probabilities are smoothed.
function follow(session, faces) {
  const now = performance.now() / 1000;
  if (live.name !== session) live = { name: session, tracker: new Tracker(about.smoothing), began: now, frames: 0 };
  const people = live.tracker.update(now - live.began, faces);
  live.frames += 1;
  return {
    frame: live.frames - 1, time: rounded(now - live.began, 4),
    faces: faces.map((face, at) => ({
      person: people[at].person, ...record(face, people[at].smoothed), probabilities: named(face.probabilities), smoothed: named(people[at].smoothed),
    })),
  };
}

// A face as fer_jax.apps.records.face_record has it, told by `shares`.
function record({ box, points, score }, shares) {
  const best = shares.indexOf(Math.max(...shares));
  return {
    box: box.map((value) => rounded(value, 2)), points: points.map((point) => point.map((value) => rounded(value, 2))), score: rounded(score, 4),
    probabilities: named(shares), emotion: about.class_names[best], emoji: about.in_browser.emoji[best], unsure: shares[best] < about.threshold,
  };
}

function named(shares) {
  return Object.fromEntries(about.class_names.map((name, index) => [name, rounded(shares[index], 6)]));
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}
