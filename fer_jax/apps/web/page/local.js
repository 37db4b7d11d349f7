// Pictures read in this browser: a worker has the networks, and nothing that is shown to it leaves the machine.

const worker = new Worker('worker.js', { type: 'module' }), waiting = new Map();
let count = 0;

worker.onmessage = ({ data: { id, result, words } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (words === undefined) resolve(result);
  else reject(new Error(words));
};
worker.onerror = (event) => {
  event.preventDefault();
  for (const { reject } of waiting.values()) reject(new Error('This browser cannot run the networks; a newer one is needed.'));
  waiting.clear();
};

// Gives the worker the server's description and its models, which `fetchBytes` fetches by their paths.
export async function begin(about, fetchBytes) {
  const paths = Object.entries(about.in_browser.models), buffers = await Promise.all(paths.map(([, path]) => fetchBytes(path)));
  await ask({ about, bytes: Object.fromEntries(paths.map(([name], at) => [name, buffers[at]])) }, buffers);
}

// As `predict` in api.js.
export function predict(picture, session = '') {
  return ask({ picture, session });
}

function ask(message, transferred = []) {
  count += 1;
  worker.postMessage({ id: count, ...message }, transferred);
  return new Promise((resolve, reject) => { waiting.set(count, { resolve, reject }); });
}
