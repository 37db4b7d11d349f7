// The faces as a list: emoji, emotion and bars, which are text for those who do not see them.

import { percent, shares } from './draw.js';

export class Cards {
  constructor(list, colours) {
    this.list = list;
    this.colours = colours;
    this.cards = new Map();
  }

  clear() {
    this.cards.clear();
    this.list.replaceChildren();
  }

  // Faces of one picture, or people, who keep their card.
  show(faces) {
    const numbered = faces.map((face, index) => [face.person ?? index + 1, face]).sort(([one], [other]) => one - other);
    const here = new Set(numbered.map(([number]) => number));
    for (const [number, card] of this.cards) {
      if (!here.has(number)) {
        card.item.remove();
        this.cards.delete(number);
      }
    }
    this.list.querySelector('.none')?.remove();
    if (!faces.length) this.list.append(element('li', 'none', 'No face found.'));
    for (const [number, face] of numbered) {
      if (!this.cards.has(number)) {
        const card = makeCard(number, face, this.colours);
        this.cards.set(number, card);
        const next = [...this.cards].filter(([other]) => other > number).sort(([one], [other]) => one - other)[0];
        this.list.insertBefore(card.item, next ? next[1].item : null);
      }
      fillCard(this.cards.get(number), face);
    }
  }
}

// What the faces say, in a sentence.
export function sentence(faces, more = false) {
  if (!faces.length) return 'No face found.';
  const said = faces.slice(0, 6).map((face) => {
    const words = `${face.emotion}${face.unsure ? ' (unsure)' : ''} ${percent(shares(face)[face.emotion])}`;
    return face.person ? `person ${face.person} ${words}` : words;
  });
  const count = more ? `The ${faces.length} surest faces` : faces.length === 1 ? 'One face' : `${faces.length} faces`;
  return `${count}: ${said.join(', ')}${faces.length > 6 ? ', …' : ''}.`;
}

function makeCard(number, face, colours) {
  const item = element('li');
  const title = element('p', 'face-title');
  const emoji = element('span', 'emoji');
  emoji.setAttribute('aria-hidden', 'true');
  const name = element('span', 'name'), share = element('span', 'share');
  title.append(emoji, name, element('span', 'who', face.person ? `person ${number}` : `face ${number}`), share);
  const list = element('ul', 'bars');
  const bars = {};
  for (const emotion of Object.keys(shares(face))) {
    const row = element('li'), track = element('span', 'track'), fill = element('span', 'fill'), said = element('span', 'number');
    track.setAttribute('aria-hidden', 'true');
    fill.style.setProperty('--colour', colours[emotion]);
    track.append(fill);
    row.append(element('span', '', emotion), track, said);
    list.append(row);
    bars[emotion] = { fill, said };
  }
  item.append(title, list);
  return { item, emoji, name, share, bars };
}

function fillCard(card, face) {
  const now = shares(face);
  card.emoji.textContent = face.emoji;
  card.name.textContent = face.emotion + (face.unsure ? '? (unsure)' : '');
  card.share.textContent = percent(now[face.emotion]);
  for (const [emotion, { fill, said }] of Object.entries(card.bars)) {
    fill.style.setProperty('--share', now[emotion]);
    said.textContent = percent(now[emotion]);
  }
}

export function element(name, kind = '', words = '') {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = words;
  return made;
}
