import { expect } from 'chai';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { groupId, replicaId } from '../../../raft/index.js';
import {
  exportSnapshot,
  hashReplica,
  importSnapshot,
  KeyKind,
  machineKey,
  machineRange,
  MemoryEngine,
  replicaKey,
  replicaPrefix,
  RocksEngine,
  slotKey,
  SnapshotDamaged,
  type Engine,
} from '../../../storage/index.js';

const from = replicaPrefix(groupId(1), replicaId(1));
const to = replicaPrefix(groupId(1), replicaId(7));

/** Some MiB of a state machine, with the marks of its replica, which must not travel. */
async function fill(engine: Engine, prefix: Uint8Array, keys = 3000): Promise<void> {
  const batch = engine.batch();
  for (let i = 0; i < keys; i++) {
    const place = { slot: (i * 37) % 16_384, instance: 0 };
    const key = slotKey(prefix, place, KeyKind.value, Buffer.from(`key-${i}`));
    batch.put(key, Buffer.alloc(i % 1000, i % 251));
  }
  batch.put(machineKey(prefix, 'log-time'), Buffer.from('12345678'));
  batch.put(replicaKey(prefix, 'applied'), Buffer.from('mark of this replica'));
  await engine.write(batch, { sync: false });
}

async function chunksOf(engine: Engine, prefix: Uint8Array): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of exportSnapshot(engine, machineRange(prefix))) chunks.push(chunk);
  return chunks;
}

async function* stream(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield Promise.resolve(chunk);
}

const install = (engine: Engine, chunks: Iterable<Uint8Array>): Promise<void> =>
  importSnapshot(engine, { prefix: to, range: machineRange(to) }, stream(chunks));

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
}

describe('a snapshot stream', function () {
  this.timeout(30_000);
  const base = mkdtempSync(join(tmpdir(), 'quorate-snapshot-'));
  after(() => {
    rmSync(base, { recursive: true, force: true });
  });

  it('carries a state machine to another replica, between engines of either kind', async () => {
    const open = async (name: string): Promise<readonly Engine[]> => [
      new MemoryEngine(),
      await RocksEngine.open({ directory: join(base, name), memoryBytesMax: 8 << 20 }),
    ];
    const sources = await open('source');
    const targets = await open('target');
    const hashes = new Set<string>();
    for (const source of sources) {
      await fill(source, from);
      const { hash, pairs } = await hashReplica(source, machineRange(from));
      expect(pairs).to.equal(3001);
      hashes.add(hash);
      for (const target of targets) {
        // What was there before goes, and the replica's own mark stays.
        await fill(target, to, 50);
        await install(target, await chunksOf(source, from));
        const copy = await hashReplica(target, machineRange(to));
        expect(copy).to.deep.equal({ hash, pairs });
        const [mark] = await target.getMany([replicaKey(to, 'applied')]);
        expect(Buffer.from(mark ?? []).toString()).to.equal('mark of this replica');
      }
    }
    expect(hashes.size).to.equal(1);
    for (const engine of [...sources, ...targets]) await engine.close();
  });

  it('shows the moment of its export, whatever is written while it is sent', async () => {
    const source = new MemoryEngine();
    await fill(source, from);
    const { hash } = await hashReplica(source, machineRange(from));
    const chunks = exportSnapshot(source, machineRange(from));
    await fill(source, from, 10);
    await source.clear(machineRange(from));
    const target = new MemoryEngine();
    await importSnapshot(target, { prefix: to, range: machineRange(to) }, chunks);
    expect((await hashReplica(target, machineRange(to))).hash).to.equal(hash);
  });

  it('of an empty state machine empties the target', async () => {
    const target = new MemoryEngine();
    await fill(target, to, 20);
    await install(target, await chunksOf(new MemoryEngine(), from));
    expect((await hashReplica(target, machineRange(to))).pairs).to.equal(0);
  });

  it('that is cut after any chunk is refused', async () => {
    const source = new MemoryEngine();
    await fill(source, from);
    const chunks = await chunksOf(source, from);
    expect(chunks.length).to.be.greaterThan(4);
    for (let length = 0; length < chunks.length; length++) {
      const error = await rejection(install(new MemoryEngine(), chunks.slice(0, length)));
      expect(error, `${length} chunks`).to.be.instanceOf(SnapshotDamaged);
      expect(String(error)).to.match(/cut/);
    }
  });

  it('with any bit flipped is refused', async () => {
    const source = new MemoryEngine();
    await fill(source, from, 600);
    const chunks = await chunksOf(source, from);
    for (let n = 0; n < 300; n++) {
      const at = n % chunks.length;
      const damaged = chunks.map((chunk) => Uint8Array.from(chunk));
      const victim = damaged[at] ?? new Uint8Array(1);
      const place = (n * 7919) % victim.length;
      victim[place] = (victim[place] ?? 0) ^ (1 << (n % 8));
      const error = await rejection(install(new MemoryEngine(), damaged));
      expect(error, `chunk ${at}, byte ${place}`).to.be.instanceOf(SnapshotDamaged);
    }
  });

  it('with a chunk missing, doubled, out of order or behind the end is refused', async () => {
    const source = new MemoryEngine();
    await fill(source, from);
    const chunks = await chunksOf(source, from);
    const [a, b, c] = chunks;
    if (a === undefined || b === undefined || c === undefined) throw new Error('too few chunks');
    const rest = chunks.slice(3);
    const flawed = [
      [a, c, ...rest],
      [a, b, b, c, ...rest],
      [b, a, c, ...rest],
      [...chunks, a],
      [new Uint8Array(0), ...chunks],
      [Buffer.from('nonsense that is long enough'), ...chunks],
    ];
    for (const [n, list] of flawed.entries()) {
      const error = await rejection(install(new MemoryEngine(), list));
      expect(error, `flaw ${n}`).to.be.instanceOf(SnapshotDamaged);
    }
  });

  it('can be given up at any chunk, and closes its view', async () => {
    const directory = join(base, 'given-up');
    const engine = await RocksEngine.open({ directory, memoryBytesMax: 8 << 20 });
    await fill(engine, from);
    const chunks = exportSnapshot(engine, machineRange(from));
    for await (const chunk of chunks) if (chunk.length > 0) break;
    await chunks.discard();
    const unread = exportSnapshot(engine, machineRange(from));
    await unread.discard();
    await engine.close();
  });

  it('differs in its hash for a key, a value, or the place of a byte between them', async () => {
    const hashOf = async (pairs: readonly (readonly [string, string])[]): Promise<string> => {
      const engine = new MemoryEngine();
      const batch = engine.batch();
      for (const [key, value] of pairs) {
        const place = { slot: 1, instance: 0 };
        batch.put(slotKey(from, place, KeyKind.value, Buffer.from(key)), Buffer.from(value));
      }
      await engine.write(batch, { sync: false });
      return (await hashReplica(engine, machineRange(from))).hash;
    };
    const hashes = [
      await hashOf([]),
      await hashOf([['a', '1']]),
      await hashOf([['a', '2']]),
      await hashOf([['b', '1']]),
      await hashOf([
        ['a', '1'],
        ['b', ''],
      ]),
      await hashOf([
        ['a', '1b'],
        ['b', ''],
      ]),
    ];
    expect(new Set(hashes).size).to.equal(hashes.length);
  });
});
