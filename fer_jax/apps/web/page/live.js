// A camera or a screen: frame after frame goes to the server, each when the one before has come back.

import { predict } from './api.js';

const SIDE = 640, QUALITY = 0.85, LEAST = 1000 / 15; // pixels, JPEG, milliseconds from frame to frame
const WORDS = {
  NotAllowedError: 'was not allowed. Allow it in the browser and try again.',
  NotFoundError: 'was not found.',
  NotReadableError: 'cannot be read; perhaps another program uses it.',
  AbortError: 'stopped before it began.',
};

// The stream of 'camera' or 'screen'; an Error with words for people where there is none.
export async function openStream(kind) {
  const name = kind === 'camera' ? 'The camera' : 'The screen';
  const devices = navigator.mediaDevices;
  if (!window.isSecureContext || !devices) {
    throw new Error(`${name} is for pages from https or from localhost alone; browsers want it so.`);
  }
  try {
    if (kind === 'camera') {
      return await devices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: 'user' } });
    }
    if (!devices.getDisplayMedia) throw new DOMException('', 'NotFoundError');
    return await devices.getDisplayMedia({ video: true });
  } catch (error) {
    throw new Error(`${name} ${WORDS[error.name] ?? `cannot be opened (${error.name}).`}`);
  }
}

export class Live {
  // show(result, frame, rate) for every frame; busy(words) when the server asks to wait; end(error or null) once.
  constructor(stream, { show, busy, end }) {
    Object.assign(this, { stream, show, busy, end, running: true });
    this.session = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    this.video = document.createElement('video');
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.srcObject = stream;
    stream.getVideoTracks()[0].addEventListener('ended', () => this.stop());
    this.run().then(() => end(null), (error) => { this.stop(); end(error); });
  }

  stop() {
    this.running = false;
    for (const track of this.stream.getTracks()) track.stop();
  }

  async run() {
    await this.video.play();
    let before = performance.now(), rate = 0;
    while (this.running) {
      if (!this.video.videoWidth) { // a screen's first frame can take its time
        await pause(50);
        continue;
      }
      const frame = this.grab();
      const picture = await new Promise((resolve) => { frame.toBlob(resolve, 'image/jpeg', QUALITY); });
      let result;
      try {
        result = await predict(picture, this.session);
      } catch (error) {
        if (!error.after || !this.running) throw error;
        this.busy(error.message);
        await pause(1000 * error.after);
        continue;
      }
      if (!this.running) return;
      await pause(before + LEAST - performance.now());
      const now = performance.now();
      rate = rate ? rate + 0.2 * (1000 / (now - before) - rate) : 1000 / (now - before);
      before = now;
      this.show(result, frame, rate);
    }
  }

  grab() {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = Math.min(1, SIDE / Math.max(width, height));
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    canvas.getContext('2d').drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas;
  }
}

export function pause(milliseconds) {
  return milliseconds > 0 ? new Promise((resolve) => { setTimeout(resolve, milliseconds); }) : Promise.resolve();
}
