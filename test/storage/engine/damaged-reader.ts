/** A process that reads everything in an engine: `node damaged-reader.js DIRECTORY`. */
import { RocksEngine } from '../../../storage/index.js';
import { bytes } from './engine-contract.js';

const [, , directory = ''] = process.argv;
const engine = await RocksEngine.open({ directory, memoryBytesMax: 8 << 20 });
const keys = Array.from({ length: 20_000 }, (_, i) => bytes(`k${i}`));
const values = await engine.getMany(keys);
const wrong = values.filter((value, i) => value === undefined || value[0] !== i % 251).length;
// A wrong or missing value without an error would be the worst of all.
console.log(`read ${values.length}, wrong ${wrong}`);
await engine.close();
