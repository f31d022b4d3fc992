import { expect } from 'chai';
import { EntryKind, groupId, replicaId, type Entry } from '../../raft/index.js';
import { hashReplica, MemoryEngine, replicaPrefix, type Engine } from '../../storage/index.js';
import { encodeBootstrap, MetaMachine, type MetaResult } from '../../src/meta/meta-machine.js';
import { wholeMap } from '../../src/meta/slot-map.js';

const prefix = replicaPrefix(groupId(0), replicaId(1));

function bootstrap(clusterId: string, shard = 1): Uint8Array {
  const map = wholeMap(shard);
  return encodeBootstrap({
    clusterId,
    nodes: [{ node: 1, peerAddress: 'a:1', clientAddress: 'a:2' }],
    map: { version: map.version, ranges: [...map.ranges] },
  });
}

const entryOf = (data: Uint8Array, index: number): Entry => ({
  index,
  term: 1,
  kind: EntryKind.command,
  data,
});

async function open(engine: Engine, at = prefix): Promise<MetaMachine> {
  const machine = new MetaMachine(engine, at);
  await machine.load();
  return machine;
}

/** As the applier does it: one batch, then what readers see moves on. */
async function apply(
  machine: MetaMachine,
  engine: Engine,
  commands: readonly Uint8Array[],
): Promise<readonly MetaResult[]> {
  const batch = engine.batch();
  const { results } = await machine.apply(commands.map(entryOf), batch);
  await engine.write(batch, { sync: false });
  machine.written();
  return results;
}

describe('state machine of the metadata group', () => {
  it('D40: keeps the first cluster record and answers every later one with exists', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    expect(machine.record).to.equal(undefined);
    const first = await apply(machine, engine, [bootstrap('one'), bootstrap('two')]);
    expect(first).to.deep.equal([{ kind: 'written' }, { kind: 'exists' }]);
    expect(await apply(machine, engine, [bootstrap('three', 7)])).to.deep.equal([
      { kind: 'exists' },
    ]);
    expect(machine.record?.clusterId).to.equal('one');
    expect(machine.record?.map).to.deep.equal(wholeMap(1));
  });

  it('D40: a repetition of the very same record is no second bootstrap', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    await apply(machine, engine, [bootstrap('one')]);
    const before = await hashReplica(engine, machine.range);
    expect(await apply(machine, engine, [bootstrap('one')])).to.deep.equal([{ kind: 'exists' }]);
    expect(await hashReplica(engine, machine.range)).to.deep.equal(before);
  });

  it('shows readers a record only when its batch is in the engine', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    const batch = engine.batch();
    await machine.apply([entryOf(bootstrap('one'), 1)], batch);
    expect(machine.record).to.equal(undefined);
    await engine.write(batch, { sync: false });
    machine.written();
    expect(machine.record?.clusterId).to.equal('one');
  });

  it('R41: equal entries leave equal bytes, however they are batched and on whatever replica', async () => {
    const commands = [bootstrap('one'), bootstrap('two', 2), bootstrap('one')];
    const hashes = await Promise.all(
      [[3], [1, 2], [2, 1], [1, 1, 1]].map(async (sizes, n) => {
        const engine = new MemoryEngine();
        const machine = await open(engine, replicaPrefix(groupId(0), replicaId(n + 1)));
        let at = 0;
        for (const size of sizes) await apply(machine, engine, commands.slice(at, (at += size)));
        return (await hashReplica(engine, machine.range)).hash;
      }),
    );
    expect(new Set(hashes).size).to.equal(1);
  });

  it('R42: has its record again after a restart, and refuses the entry when it is replayed', async () => {
    const engine = new MemoryEngine();
    await apply(await open(engine), engine, [bootstrap('one')]);
    const again = await open(engine);
    expect(again.record?.clusterId).to.equal('one');
    expect(await apply(again, engine, [bootstrap('other')])).to.deep.equal([{ kind: 'exists' }]);
  });

  const bad: readonly (readonly [string, string])[] = [
    ['no JSON', '{"version":1'],
    ['another version', JSON.stringify({ version: 2, clusterId: 'x', nodes: [], map: {} })],
    [
      'a field of a newer program',
      Buffer.from(bootstrap('x')).toString().replace('{', '{"colour":"red",'),
    ],
    ['nothing', ''],
  ];
  for (const [what, text] of bad) {
    it(`D16: stops at a command with ${what}, instead of skipping it`, async () => {
      const engine = new MemoryEngine();
      const machine = await open(engine);
      const batch = engine.batch();
      let thrown: unknown;
      try {
        await machine.apply([entryOf(Buffer.from(text), 1)], batch);
      } catch (error) {
        thrown = error;
      }
      expect(thrown).to.be.instanceOf(Error);
      expect(batch.length).to.equal(0);
      expect(machine.record).to.equal(undefined);
    });
  }

  it('tells its owner when leadership comes and goes', async () => {
    const machine = await open(new MemoryEngine());
    const seen: boolean[] = [];
    machine.onLeading = ({ leading }) => seen.push(leading);
    machine.onLeadership({ leading: true, clockMedianMs: 1 });
    machine.onLeadership({ leading: false, clockMedianMs: 1 });
    expect(seen).to.deep.equal([true, false]);
  });
});
