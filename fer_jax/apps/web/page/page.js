// The page: what is chosen, dropped, pasted or filmed is read, by the server or in this browser, and the result shown.

import { model, predict, Refused } from './api.js';
import { Cards, sentence } from './cards.js';
import { drawFaces, drawPicture } from './draw.js';
import { Live, openStream, pause } from './live.js';
import { Timeline } from './timeline.js';

const MOST_FRAMES = 20_000, TRIES = 5, SPEAK_EVERY = 3000; // kept for the JSON; for a picture; milliseconds
const LOADING = 'The networks are being loaded.';
const at = (id) => document.getElementById(id);
const canvas = at('picture');
let about = null, beginning = null, cards = null, timeline = null, live = null;
let turn = 0; // counts what was begun; an answer to what came before is dropped
let saved = { name: 'faces', content: null };

start();

async function start() {
  at('choose').addEventListener('click', () => at('file').click());
  at('file').addEventListener('change', () => { readFiles(at('file').files); at('file').value = ''; });
  at('camera').addEventListener('click', () => readLive('camera'));
  at('screen').addEventListener('click', () => readLive('screen'));
  at('stop').addEventListener('click', stop);
  at('save-json').addEventListener('click', saveJson);
  at('save-picture').addEventListener('click', savePicture);
  const frame = document.querySelector('.frame');
  addEventListener('dragover', (event) => { event.preventDefault(); frame.classList.add('over'); });
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) frame.classList.remove('over'); });
  addEventListener('drop', (event) => {
    event.preventDefault();
    frame.classList.remove('over');
    readFiles(event.dataTransfer.files);
  });
  addEventListener('paste', (event) => { if (event.clipboardData.files.length) readFiles(event.clipboardData.files); });
  await begin().catch(fail);
}

// What the server is, asked once, or again if it could not be reached.
function begin() {
  beginning ??= model(() => say(LOADING)).then((told) => {
    about = told;
    cards = new Cards(at('faces'), about.colours);
    if (!about.in_browser) return;
    at('where').textContent = 'Pictures are read in this browser and never leave this machine.';
    at('stays').hidden = false;
    if (at('status').textContent === LOADING) say('Ready.');
  }, (error) => {
    beginning = null;
    throw error;
  });
  return beginning;
}

async function readFiles(files) {
  stop();
  const mine = ++turn;
  clearError();
  if (!files.length) return fail(new Refused('There is no picture in that; a file of one is wanted.'));
  const [file] = files;
  say(files.length > 1 ? `The first of ${files.length} files is being read.` : 'The picture is being read.');
  try {
    await begin();
    if (file.size > about.limits.size) {
      throw new Refused(`The file has ${megabytes(file.size)} MB; up to ${megabytes(about.limits.size)} MB are read.`);
    }
    const result = await patiently(file, mine);
    const bitmap = await createImageBitmap(file).catch(() => null); // not every browser shows TIFF
    if (mine !== turn) return;
    showPicture(result, bitmap, file.name);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

// The answer, asked for again where the server is busy.
async function patiently(file, mine) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await predict(file);
    } catch (error) {
      if (!error.after || attempt === TRIES || mine !== turn) throw error;
      say(error.message);
      await pause(1000 * error.after);
    }
  }
}

function showPicture(result, bitmap, name) {
  const { milliseconds, ...content } = result;
  const words = sentence(result.faces, result.more_faces);
  const frames = result.first_of_frames ? ` The first of ${result.first_of_frames} frames.` : '';
  cards.clear();
  show(result, bitmap, `${words}${frames}`);
  say(`${words}${frames} Read in ${Math.round(milliseconds)} ms.`);
  at('over-time').hidden = true;
  keep(name.replace(/\.[^.]*$/, '') || 'faces', { ...content, source: name });
}

function show(result, source, words) {
  at('empty').hidden = true;
  canvas.hidden = false;
  const scale = drawPicture(canvas, source, result.width, result.height);
  drawFaces(canvas, result.faces, scale, about.colours);
  canvas.setAttribute('aria-label', words);
  cards.show(result.faces);
}

async function readLive(kind) {
  if (live?.kind === kind) return stop();
  stop();
  const mine = ++turn;
  clearError();
  say(kind === 'camera' ? 'The camera is being opened.' : 'Choose what to share.');
  try {
    await begin();
    const stream = await openStream(kind);
    if (mine !== turn) return stream.getTracks().forEach((track) => track.stop());
    film(stream, kind);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

function film(stream, kind) {
  const frames = [];
  let spoken = 0, before = '';
  cards.clear();
  timeline = new Timeline(at('timeline'), at('people'), at('legend'), about.colours);
  at('over-time').hidden = false;
  at('stop').hidden = false;
  at(kind).setAttribute('aria-pressed', 'true');
  keep(kind, { schema: about.schema, kind: 'live', source: kind, frames });
  const mine = new Live(stream, {
    show({ milliseconds, ...frame }, picture, rate) {
      const words = sentence(frame.faces, frame.more_faces);
      show(frame, picture, words);
      timeline.add(frame.time, frame.faces);
      if (frames.length < MOST_FRAMES) frames.push(frame);
      at('rate').hidden = false;
      at('rate').textContent = `${rate.toFixed(1)} frames/s · ${Math.round(milliseconds)} ms`;
      const heard = frame.faces.map((face) => `${face.person} ${face.emotion}`).join();
      if (heard !== before && performance.now() - spoken > SPEAK_EVERY) { // or a screen reader would never end
        [spoken, before] = [performance.now(), heard];
        say(words);
      }
    },
    busy: say,
    end(error) {
      if (live !== mine) return;
      stop();
      if (error) fail(error);
    },
  });
  mine.kind = kind;
  live = mine;
}

function stop() {
  turn += 1;
  if (!live) return;
  const ended = live;
  live = null;
  ended.stop();
  if (document.activeElement === at('stop')) at(ended.kind).focus(); // or the keyboard would be nowhere
  at('stop').hidden = true;
  at('rate').hidden = true;
  for (const kind of ['camera', 'screen']) at(kind).setAttribute('aria-pressed', 'false');
  say('Stopped. The last frame stays.');
}

function say(words) {
  at('status').textContent = words;
}

function fail(error) {
  at('error').textContent = error.message || 'Something went wrong on this page.';
  at('error').hidden = false;
  say('');
}

function clearError() {
  at('error').hidden = true;
  at('error').textContent = '';
}

function keep(name, content) {
  saved = { name, content };
  at('save-json').disabled = false;
  at('save-picture').disabled = false;
}

function saveJson() {
  save(new Blob([`${JSON.stringify(saved.content)}\n`], { type: 'application/json' }), `${saved.name}.json`);
}

function savePicture() {
  canvas.toBlob((blob) => save(blob, `${saved.name}_faces.png`), 'image/png');
}

function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}
