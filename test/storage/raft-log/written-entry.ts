/**
 * The entry that the killed writer appends: known to the test that looks at what it left behind.
 */
import type { Entry } from '../../../raft/index.js';
import { command } from './fixture.js';

/** Payloads of 20 to about 1,500 bytes, each unlike its neighbours. */
export function writtenEntry(id: number, index: number): Entry {
  const length = 20 + ((id * 7 + index * 131) % 1_500);
  return command(
    index,
    1,
    `${id}/${index} `.padEnd(length, String.fromCharCode(97 + (index % 26))),
  );
}
