// People's emotions over the last minute: shares stacked, a strip for each; and as a table.

import { element } from './cards.js';
import { shares } from './draw.js';

const SECONDS = 60, MOST_PEOPLE = 4, STRIP = 64, GAP = 14, LEFT = 74; // pixels
const AWAY = 1.5; // seconds without a look after which someone was away
const LEAST_LOOKS = 3; // before someone is shown: what is taken for a face once is none

export class Timeline {
  constructor(canvas, table, legend, colours) {
    Object.assign(this, { canvas, table, colours, people: new Map(), now: 0, told: 0 });
    legend.replaceChildren(...Object.entries(colours).map(([name, colour]) => {
      const item = element('li'), swatch = element('i');
      swatch.style.setProperty('--colour', colour);
      item.append(swatch, name);
      return item;
    }));
  }

  add(time, faces) {
    this.now = time;
    for (const face of faces) {
      if (!this.people.has(face.person)) this.people.set(face.person, { looks: [], count: 0, counts: {}, seconds: 0, emotion: '' });
      const person = this.people.get(face.person), last = person.looks.at(-1);
      if (last && time - last.time < AWAY) person.seconds += time - last.time;
      person.looks.push({ time, shares: shares(face) });
      person.counts[face.emotion] = (person.counts[face.emotion] ?? 0) + 1;
      person.count += 1;
      person.emotion = face.emotion;
    }
    for (const person of this.people.values()) {
      while (person.looks.length > 1 && person.looks[0].time < time - SECONDS - AWAY) person.looks.shift();
    }
    this.draw();
    if (time - this.told > 1 || time < this.told) this.tell();
  }

  draw() {
    const shown = this.known().filter(([, person]) => person.looks.at(-1).time > this.now - SECONDS)
      .sort(([, one], [, other]) => other.seconds - one.seconds).slice(0, MOST_PEOPLE).sort(([one], [other]) => one - other);
    const ratio = window.devicePixelRatio || 1, height = Math.max(1, shown.length) * (STRIP + GAP) + 20;
    this.canvas.style.height = `${height}px`;
    const width = this.canvas.clientWidth;
    [this.canvas.width, this.canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = this.canvas.getContext('2d'), style = getComputedStyle(this.canvas);
    context.scale(ratio, ratio);
    context.font = `13px ${style.fontFamily}`;
    context.textBaseline = 'middle';
    const span = Math.min(SECONDS, Math.max(10, this.now)), begin = this.now - span;
    const x = (time) => LEFT + (width - LEFT) * Math.max(0, (time - begin) / span);
    shown.forEach(([number, person], row) => {
      const top = row * (STRIP + GAP) + 4;
      context.fillStyle = style.getPropertyValue('--track');
      context.fillRect(LEFT, top, width - LEFT, STRIP);
      this.strip(context, person.looks.filter(({ time }) => time >= begin - AWAY), x, top);
      context.fillStyle = style.color;
      context.fillText(`person ${number}`, 0, top + STRIP / 2);
    });
    context.fillStyle = style.color;
    for (const [share, align] of [[0, 'left'], [0.5, 'center'], [1, 'right']]) {
      context.textAlign = align;
      const ago = Math.round((1 - share) * span);
      context.fillText(ago ? `${ago} s ago` : 'now', LEFT + share * (width - LEFT), height - 8);
    }
  }

  strip(context, looks, x, top) {
    for (let index = 0; index < looks.length; index += 1) {
      const { time, shares: now } = looks[index], next = looks[index + 1];
      const end = next && next.time - time < AWAY ? next.time : Math.min(time + 0.3, this.now);
      const left = Math.round(x(time)), wide = Math.max(1, Math.round(x(end)) - left); // whole pixels leave no seam
      let y = top + STRIP;
      for (const [name, share] of Object.entries(now)) {
        context.fillStyle = this.colours[name];
        context.fillRect(left, y - share * STRIP, wide, share * STRIP);
        y -= share * STRIP;
      }
    }
  }

  known() {
    return [...this.people].filter(([, person]) => person.count >= LEAST_LOOKS);
  }

  tell() {
    this.told = this.now;
    this.table.replaceChildren(...this.known().map(([number, person]) => {
      const here = person.looks.at(-1).time > this.now - AWAY;
      const most = Object.entries(person.counts).sort(([, one], [, other]) => other - one)[0][0];
      const row = element('tr'), head = element('th', '', `${number}`);
      head.scope = 'row';
      row.append(head, ...[here ? person.emotion : 'away', most, `${person.seconds.toFixed(0)} s`].map((words) => element('td', '', words)));
      return row;
    }));
  }
}
