// The policy's plain functions under Node, one JSON line in for one line out; Node writes down which code it ran.

import readline from 'node:readline';
import calls from './calls.js';

for await (const line of readline.createInterface({ input: process.stdin }))
    process.stdout.write(JSON.stringify(calls.answer(JSON.parse(line))) + '\n');
