/** What the RocksDB binding does not keep by itself, and the engine therefore must. */
import { expect } from 'chai';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import rocksdb, { type RocksLevel } from 'rocksdb';
import { EngineLocked, RocksEngine } from '../../../storage/index.js';
import { bytes, everything, get, list, put } from './engine-contract.js';

const writer = join(import.meta.dirname, `killed-writer${extname(import.meta.filename)}`);

function levelOf(engine: RocksEngine): RocksLevel {
  const level: unknown = Reflect.get(engine, 'level');
  if (!(level instanceof rocksdb.RocksLevel)) throw new Error('the engine has no level');
  return level;
}

/** Exact below 10,000; then RocksDB rounds. */
function logFigures(engine: RocksEngine): { readonly writes: number; readonly syncs: number } {
  const text = levelOf(engine).getProperty('rocksdb.dbstats');
  const [, writes, syncs] = /Cumulative WAL: (\d+) writes, (\d+) syncs/.exec(text) ?? [];
  return { writes: Number(writes), syncs: Number(syncs) };
}

describe('the binding of RocksDB', function () {
  this.timeout(30_000);
  let base = '';
  let opened = 0;
  const directory = (): string => join(base, `engine-${opened++}`);
  const open = (path = directory()): Promise<RocksEngine> =>
    RocksEngine.open({ directory: path, memoryBytesMax: 8 << 20 });

  before(() => {
    base = mkdtempSync(join(tmpdir(), 'quorate-binding-'));
  });
  after(() => {
    rmSync(base, { recursive: true, force: true });
  });

  it('D14: syncs its log once for each synced batch, and for no other', async () => {
    const engine = await open();
    const before = logFigures(engine);
    for (let n = 0; n < 5; n++) await put(engine, { [`unsynced-${n}`]: 'v' });
    expect(logFigures(engine)).to.deep.equal({ ...before, writes: before.writes + 5 });
    for (let n = 0; n < 3; n++) await put(engine, { mark: String(n) }, true);
    expect(logFigures(engine)).to.deep.equal({
      writes: before.writes + 8,
      syncs: before.syncs + 3,
    });
    await engine.close();
  });

  it('does not compress its log', async () => {
    const path = directory();
    const engine = await open(path);
    const batch = engine.batch();
    for (let n = 0; n < 1000; n++) batch.put(bytes(`k${n}`), Buffer.alloc(1000));
    await engine.write(batch, { sync: true });
    const logs = readdirSync(path).filter((name) => name.endsWith('.log'));
    const size = logs.reduce((sum, name) => sum + statSync(join(path, name)).size, 0);
    expect(size).to.be.at.least(batch.bytes);
    await engine.close();
  });

  it('closes only after what was begun, and loses none of it', async () => {
    const path = directory();
    const engine = await open(path);
    await put(engine, { gone: '1', kept: '2' });
    const iterators = Array.from({ length: 10 }, () =>
      engine.iterate({ ...everything, pageBytesMax: 1 }),
    );
    const writes = Array.from({ length: 50 }, (_, n) =>
      put(engine, { [`n${n}`]: 'v' }, n % 9 === 0),
    );
    const clear = engine.clear({ start: bytes('g'), end: bytes('h') });
    const read = get(engine, 'kept');
    await engine.close();
    await Promise.all([...writes, clear, ...iterators.map((iterator) => iterator.close())]);
    expect(await read).to.equal('2');
    const again = await open(path);
    const found = await list(again);
    expect(found.length).to.equal(51);
    expect(found[0]).to.equal('kept=2');
    await again.close();
  });

  it('throws for a closed iterator: the engine tells so, and works on', async () => {
    const engine = await open();
    await put(engine, { a: '1', b: '2' });
    const iterator = engine.iterate({ ...everything, pageBytesMax: 1 });
    await iterator.next();
    await iterator.close();
    const error = await iterator.next().catch((reason: unknown) => reason);
    expect(String(error)).to.match(/iterator is closed/);
    expect(await get(engine, 'b')).to.equal('2');
    await engine.close();
  });

  it('holds a lock while its process lives, and a killed one leaves none', async () => {
    const path = directory();
    const child = spawn(process.execPath, [...process.execArgv, writer, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const closed = once(child, 'close');
    try {
      await once(child.stdout, 'data');
      const error = await open(path).catch((reason: unknown) => reason);
      expect(error).to.be.instanceOf(EngineLocked);
      expect(String(error)).to.contain(path);
    } finally {
      child.kill('SIGKILL');
      await closed;
    }
    const engine = await open(path);
    expect(Number(await get(engine, 'last'))).to.be.at.least(0);
    await engine.close();
  });
});
