/**
 * A process that writes to an engine until it is killed: `node killed-writer.js DIRECTORY`. Says on
 * standard output how far it has come: `synced N` once everything up to N was synced.
 */
import { RocksEngine } from '../../../storage/index.js';
import { bytes } from './engine-contract.js';

const [, , directory = ''] = process.argv;
const engine = await RocksEngine.open({ directory, memoryBytesMax: 8 << 20 });
for (let number = 0; ; number++) {
  const batch = engine.batch();
  batch.put(bytes(`data-${String(number).padStart(9, '0')}`), Buffer.alloc(500, number % 251));
  batch.put(bytes('last'), bytes(String(number)));
  const sync = number % 50 === 0;
  await engine.write(batch, { sync });
  if (sync) process.stdout.write(`synced ${number}\n`);
}
