// The server asked. What it refuses, and what keeps it from answering, comes out as a Refused with words for people.

const KEY = 'fer_jax token';

export class Refused extends Error {
  // after: seconds until it is worth asking again; 0 where it is not.
  constructor(words, after = 0) {
    super(words);
    this.after = after;
  }
}

export async function model() {
  return (await ask('api/model')).json();
}

// The faces of a picture (a Blob), and the milliseconds that reading it took; of a session's frame the people.
export async function predict(picture, session = '') {
  const answer = await ask(`api/predict${session && `?session=${session}`}`, { method: 'POST', body: picture });
  const timing = /read;dur=([\d.]+)/.exec(answer.headers.get('Server-Timing') ?? '');
  return { ...(await answer.json()), milliseconds: timing ? Number(timing[1]) : 0 };
}

async function ask(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: token ? { Authorization: `Bearer ${token}` } : {} });
    } catch {
      throw new Refused('The server does not answer. Is it still running?');
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      sessionStorage.setItem(KEY, await askForToken());
      continue;
    }
    throw new Refused(await words(answer), Number(answer.headers.get('Retry-After') ?? 0));
  }
}

async function words(answer) {
  try {
    const { wrong, right } = await answer.json();
    const said = `${wrong}; ${right}.`;
    return said[0].toUpperCase() + said.slice(1);
  } catch {
    return `The server answered with code ${answer.status}.`;
  }
}

let asking = null; // one dialog for all who wait

function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById('ask');
    const field = document.getElementById('token');
    field.value = '';
    dialog.oncancel = (event) => event.preventDefault();
    dialog.addEventListener('close', () => resolve(field.value.trim()), { once: true });
    dialog.showModal();
  }).finally(() => { asking = null; });
  return asking;
}
