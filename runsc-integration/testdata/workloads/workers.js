// Workers that allocate and drop buffers, each in an isolate with a heap of its own.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');

function work(number) {
  const hash = crypto.createHash('sha256');
  for (let i = 0; i < 40; i++) {
    const buffer = Buffer.alloc((((i * 29) % 48) + 1) * 16384, number + i);
    const objects = Array.from({ length: 2000 }, (_, j) => ({ j, text: `${number}/${i}/${j}` }));
    hash.update(buffer);
    hash.update(objects.map((o) => o.text).join());
  }
  return hash.digest('hex');
}

if (isMainThread) {
  const workers = 4;
  const answers = new Array(workers);
  let left = workers;
  for (let number = 0; number < workers; number++) {
    const worker = new Worker(__filename, { workerData: number });
    worker.on('message', (answer) => { answers[number] = answer; });
    worker.on('error', (error) => { throw error; });
    worker.on('exit', () => {
      if (--left === 0) answers.forEach((answer, n) => console.log(n, answer));
    });
  }
} else {
  parentPort.postMessage(work(workerData));
}
