// The server asked, or in its stead this browser, where the server wants it so (serve --in-browser). What is refused,
// and what keeps it from answering, comes out as a Refused with words for people.

const KEY = 'fer_jax token';

export class Refused extends Error {
  // after: seconds until it is worth asking again; 0 where it is not.
  constructor(words, after = 0) {
    super(words);
    this.after = after;
  }
}

let local = null; // what reads in this browser

// What the server is; loading() is called before networks are loaded, which takes a while.
export async function model(loading) {
  const about = await (await ask('api/model')).json();
  if (about.in_browser) {
    loading();
    const reader = await import('./local.js');
    await asRefused(reader.begin(about, async (path) => (await ask(path)).arrayBuffer()));
    local = reader;
  }
  return about;
}

// The faces of a picture (a Blob), and the milliseconds that reading it took; of a session's frame the people.
export async function predict(picture, session = '') {
  if (local) return asRefused(local.predict(picture, session));
  const answer = await ask(`api/predict${session && `?session=${session}`}`, { method: 'POST', body: picture });
  const timing = /read;dur=([\d.]+)/.exec(answer.headers.get('Server-Timing') ?? '');
  return { ...(await answer.json()), milliseconds: timing ? Number(timing[1]) : 0 };
}

function asRefused(promise) {
  return promise.catch((error) => { throw error instanceof Refused ? error : new Refused(error.message); });
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
