/**
 * A real process on a real file system, killed in the middle of its writes.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { expect } from 'chai';
import { RaftLog } from '../../storage/index.js';
import { group, texts } from './raft-log/fixture.js';
import { writtenEntry } from './raft-log/written-entry.js';

const rounds = 20;
// The same extension as this file: TypeScript in development, JavaScript in dist.
const program = join(
  import.meta.dirname,
  'raft-log',
  `killed-writer${extname(import.meta.filename)}`,
);

/** Highest acknowledged index per group, of a writer killed after some acknowledgements. */
async function killedWriter(path: string, acknowledgements: number): Promise<Map<number, number>> {
  const child = spawn(process.execPath, [...process.execArgv, program, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  let output = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (part: string) => {
    output += part;
    if (output.length > acknowledgements * 6) child.kill('SIGKILL');
  });
  const [code, signal] = (await closed) as [number | null, string | null];
  expect({ code, signal }).to.deep.equal({ code: null, signal: 'SIGKILL' });
  const acknowledged = new Map<number, number>();
  // The last line may be half a line.
  for (const line of output.split('\n').slice(0, -1)) {
    const [id = 0, index = 0] = line.split(' ').map(Number);
    acknowledged.set(id, Math.max(index, acknowledged.get(id) ?? 0));
  }
  return acknowledged;
}

describe('Raft log and kill -9', () => {
  const path = mkdtempSync(join(tmpdir(), 'quorate-raft-log-'));

  after(() => {
    rmSync(path, { recursive: true });
  });

  it(`R02: ${rounds} processes killed in the middle of writes lost nothing acknowledged`, async function () {
    this.timeout(60_000);
    const directory = join(path, 'raft-log');
    let segmentsSeen = 0;
    for (let round = 1; round <= rounds; round++) {
      const acknowledged = await killedWriter(directory, 50 + ((round * 367) % 400));
      const failures: Error[] = [];
      const log = await RaftLog.open({
        directory,
        segmentBytes: 200_000,
        tailBytesMax: 100_000_000,
        heldSegmentsMax: 3,
        onFailure: (error) => failures.push(error),
      });
      expect(acknowledged.size, 'groups that wrote').to.be.at.least(1);
      for (const [id, index] of acknowledged) {
        const found = log.recovered.find((candidate) => candidate.group === group(id));
        const { firstIndex = 0, lastIndex = 0, tail = [] } = found ?? {};
        expect(lastIndex, `group ${id} in round ${round}`).to.be.at.least(index);
        const expected = Array.from({ length: lastIndex - firstIndex + 1 }, (_, i) =>
          writtenEntry(id, firstIndex + i),
        );
        expect(texts(tail)).to.deep.equal(texts(expected));
      }
      segmentsSeen = Math.max(segmentsSeen, log.statistics().segments);
      expect(log.statistics().segments).to.be.at.most(16);
      await log.close();
      expect(failures).to.deep.equal([]);
    }
    expect(segmentsSeen).to.be.above(1);
  });
});
