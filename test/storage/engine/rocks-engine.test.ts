import { expect } from 'chai';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, statSync } from 'node:fs';
import { truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineFailure, EngineLocked, MemoryEngine, RocksEngine } from '../../../storage/index.js';
import { bytes, engineContract, everything, get, list, put } from './engine-contract.js';

const memoryBytesMax = 16 << 20;
const extension = import.meta.filename.endsWith('.ts') ? 'ts' : 'js';

function child(program: string, directory: string): ChildProcess {
  const file = join(import.meta.dirname, `${program}.${extension}`);
  return spawn(process.execPath, [...process.execArgv, file, directory]);
}

async function endOf(
  process: ChildProcess,
): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  let [out, err] = ['', ''];
  process.stdout?.on('data', (piece: Buffer) => (out += piece.toString()));
  process.stderr?.on('data', (piece: Buffer) => (err += piece.toString()));
  const [code] = (await once(process, 'close')) as [number | null];
  return { code, out, err };
}

/** Files of a directory that end so, oldest first. */
function files(directory: string, ending: string): readonly string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => join(directory, name));
}

/** Changes a bit of a byte in every `every` bytes of a file. */
function damage(path: string, every: number): void {
  const file = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  for (let at = every; at < statSync(path).size; at += every) {
    readSync(file, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ 0x10;
    writeSync(file, byte, 0, 1, at);
  }
  closeSync(file);
}

async function filled(directory: string): Promise<void> {
  const engine = await RocksEngine.open({ directory, memoryBytesMax: 8 << 20 });
  for (let i = 0; i < 20_000; i += 500) {
    const batch = engine.batch();
    for (let n = i; n < i + 500; n++) batch.put(bytes(`k${n}`), Buffer.alloc(1000, n % 251));
    await engine.write(batch, { sync: false });
  }
  await engine.close();
}

describe('the state engine on RocksDB', function () {
  this.timeout(60_000);
  let base = '';
  let opened = 0;
  const directory = (): string => join(base, `engine-${opened++}`);
  const open = (path = directory()): Promise<RocksEngine> =>
    RocksEngine.open({ directory: path, memoryBytesMax });

  before(() => {
    base = mkdtempSync(join(tmpdir(), 'quorate-engine-'));
  });
  after(() => {
    rmSync(base, { recursive: true, force: true });
  });

  engineContract(() => open());

  it('gives back after a restart what was written, synced or not', async () => {
    const path = directory();
    const engine = await open(path);
    await put(engine, { a: '1' }, true);
    await put(engine, { b: '2' });
    await engine.close();
    const again = await open(path);
    expect(await list(again)).to.deep.equal(['a=1', 'b=2']);
    await again.close();
  });

  it('R40, D14: after kill -9 has every batch whole, in order, and all that were synced', async () => {
    const path = directory();
    for (let round = 0; round < 3; round++) {
      const writer = child('killed-writer', path);
      let synced = -1;
      let out = '';
      writer.stdout?.on('data', (piece: Buffer) => {
        out += piece.toString();
        synced = Number(/synced (\d+)\n[^\n]*$/.exec(out)?.[1] ?? -1);
        if (synced >= 300 * (round + 1)) writer.kill('SIGKILL');
      });
      await once(writer, 'close');
      const engine = await open(path);
      const last = Number(await get(engine, 'last'));
      expect(last).to.be.at.least(synced);
      const range = { start: bytes('data-'), end: bytes('data.') };
      const keys = await list(engine, { ...range, keysOnly: true });
      expect(keys.length).to.equal(last + 1);
      expect(keys[keys.length - 1]).to.equal(`data-${String(last).padStart(9, '0')}=`);
      await engine.clear(everything);
      await engine.close();
    }
  });

  it('opens with a torn end of its own log, as a power cut leaves it, with a first part of the writes', async () => {
    const path = directory();
    const writer = child('killed-writer', path);
    await new Promise<void>((resolve) => {
      let out = '';
      writer.stdout?.on('data', (piece: Buffer) => {
        out += piece.toString();
        if (out.includes('synced 500\n')) resolve();
      });
    });
    writer.kill('SIGKILL');
    await once(writer, 'close');
    const [log = ''] = files(path, '.log');
    truncateSync(log, Math.floor(statSync(log).size / 2));
    const engine = await open(path);
    const last = Number(await get(engine, 'last'));
    const keys = await list(engine, { start: bytes('data-'), end: bytes('data.'), keysOnly: true });
    // Data and applied index of a batch were kept or lost together.
    expect(keys.length).to.equal(last + 1);
    expect(last).to.be.within(100, 499);
    await engine.close();
  });

  it('stops the process loudly over a damaged file, with the directory and the remedy, and serves nothing of it', async () => {
    const path = directory();
    await filled(path);
    for (const file of files(path, '.sst')) damage(file, 2000);
    const { code, out, err } = await endOf(child('damaged-reader', path));
    expect(out, 'nothing was answered from damaged bytes').to.equal('');
    expect(code).to.not.equal(0);
    expect(err).to.contain(path);
    expect(err).to.match(/EngineFailure|cannot be opened/);
    expect(err).to.match(/orruption|checksum/);
  });

  it('is broken for good by the first read of damaged bytes', async () => {
    const path = directory();
    await filled(path);
    for (const file of files(path, '.sst')) damage(file, 5000);
    const errors: unknown[] = [];
    try {
      const engine = await open(path);
      const read = (): Promise<unknown> =>
        engine.getMany(Array.from({ length: 5000 }, (_, i) => bytes(`k${i}`)));
      for (const act of [read, () => put(engine, { a: '1' }), () => get(engine, 'a')]) {
        await act().catch((error: unknown) => errors.push(error));
      }
      await engine.close();
    } catch (error) {
      errors.push(error);
    }
    expect(errors.length).to.be.oneOf([1, 3]);
    for (const error of errors) expect(error).to.be.instanceOf(EngineFailure);
    expect(String(errors[0])).to.contain(path);
  });

  it('refuses a directory that is open elsewhere, by name and with the remedy', async () => {
    const path = directory();
    const engine = await open(path);
    const error = await open(path).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(EngineLocked);
    expect(String(error)).to.contain(path);
    expect(String(error)).to.match(/in use by another process.*--data-directory/);
    await engine.close();
    await (await open(path)).close();
  });

  it('refuses a path that is no directory, by name', async () => {
    const path = directory();
    writeFileSync(path, 'a file');
    const error = await open(path).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(EngineFailure);
    expect(String(error)).to.contain(path);
  });

  it('refuses a batch of another engine', async () => {
    const engine = await open();
    const foreign = { put: () => undefined, delete: () => undefined, length: 0, bytes: 0 };
    const error = await engine.write(foreign, { sync: false }).catch((reason: unknown) => reason);
    expect(String(error)).to.match(/another engine/);
    await engine.close();
  });

  it('R45: takes and answers nothing any more after a write has failed', async () => {
    const engine = await open();
    await put(engine, { a: '1' });
    const foreign = { put: () => undefined, delete: () => undefined, length: 0, bytes: 0 };
    const attempts = [
      () => engine.write(foreign, { sync: false }),
      () => put(engine, { a: '2' }),
      () => get(engine, 'a'),
      () => engine.clear(everything),
    ];
    for (const act of attempts) {
      const error = await act().then(
        () => 'was carried out',
        (reason: unknown) => reason,
      );
      expect(error).to.be.instanceOf(EngineFailure);
    }
    await engine.close();
  });

  it('stays within about twice the memory it was given, with 200 MB written', async () => {
    const engine = await open();
    for (let i = 0; i < 200; i++) {
      const batch = engine.batch();
      for (let n = 0; n < 1000; n++) batch.put(bytes(`k${i}-${n}`), Buffer.alloc(1000, n % 251));
      await engine.write(batch, { sync: false });
      if (i % 20 === 0) await list(engine, { pageBytesMax: 1 << 20, keysOnly: true });
    }
    const statistics = engine.statistics();
    const used =
      (statistics['cur-size-all-mem-tables'] ?? NaN) + (statistics['block-cache-usage'] ?? NaN);
    expect(used).to.be.below(2 * memoryBytesMax);
    await engine.close();
  });

  it('holds the same as its twin in memory after the same writes', async () => {
    const rocks = await open();
    const memory = new MemoryEngine();
    for (let round = 0; round < 50; round++) {
      for (const engine of [rocks, memory]) {
        const batch = engine.batch();
        for (let n = 0; n < 40; n++) {
          const key = bytes(`k${(round * 31 + n * 17) % 400}`);
          if ((round + n) % 5 === 0) batch.delete(key);
          else batch.put(key, bytes(`v${round}-${n}`));
        }
        await engine.write(batch, { sync: round % 10 === 0 });
        if (round % 9 === 8) {
          await engine.clear({ start: bytes(`k${round}`), end: bytes(`k${round + 20}`) });
        }
      }
    }
    expect(await list(rocks)).to.deep.equal(await list(memory));
    expect(await list(rocks, { reverse: true })).to.deep.equal(
      await list(memory, { reverse: true }),
    );
    await rocks.close();
  });
});
