import { expect } from 'chai';
import { EntryKind, groupId, replicaId, type Entry } from '../../raft/index.js';
import { hashReplica, MemoryEngine, replicaPrefix, type Engine } from '../../storage/index.js';
import {
  encodeMetaCommand,
  MetaMachine,
  type MetaCommand,
  type MetaResult,
} from '../../src/meta/meta-machine.js';
import { changedPieces } from '../../src/meta/topology-pieces.js';
import { noCluster } from '../../src/meta/topology.js';
import { clusterOf, firstNodes, initOf, joinOf, reasonOf } from './clusters.js';

const prefix = replicaPrefix(groupId(0), replicaId(1));

function initNamed(clusterId: string): Uint8Array {
  return encodeMetaCommand(initOf(firstNodes(3), { clusterId }));
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

/** What comes of one command. */
async function resultOf(
  machine: MetaMachine,
  engine: Engine,
  command: Uint8Array,
): Promise<MetaResult> {
  const [result] = await apply(machine, engine, [command]);
  if (result === undefined) throw new Error('no result');
  return result;
}

async function thrownBy(work: () => Promise<unknown>): Promise<unknown> {
  try {
    await work();
  } catch (error) {
    return error;
  }
  return undefined;
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

function moved(id: number, slot: number): MetaCommand {
  const slots = [{ first: slot, last: slot }];
  return { kind: 'moveSlots', id, slots, keys: 3, bytes: 500, freezeMs: 12, nowMs: 9 };
}

/** A bit of everything, with every kind of piece written, changed and deleted. */
const history: readonly MetaCommand[] = [
  initOf(firstNodes(4), { shards: 5 }),
  joinOf(9),
  { kind: 'replaceReplica', shard: 1, from: 1, to: 5, nowMs: 3 },
  { kind: 'endOperation', id: 1, state: 'cancelled', progress: 'node 1 is back', nowMs: 4 },
  { kind: 'setLabels', node: 5, labels: { zone: 'b', host: 'x' } },
  { kind: 'setSetting', name: 'repairsMax', value: 5 },
  { kind: 'drain', node: 2, nowMs: 5 },
  { kind: 'createShard', replication: 2 },
  { kind: 'setMetadata', nodes: [1, 3, 5] },
  { kind: 'setWeight', node: 99, weight: 5 },
  { kind: 'setSetting', name: 'migrationsMax', value: 1 },
  {
    kind: 'startMigrations',
    moves: [
      {
        slots: [
          { first: 10, last: 11 },
          { first: 0, last: 0 },
        ],
        source: 1,
        target: 2,
      },
      { slots: [{ first: 2000, last: 2100 }], source: 1, target: 6 },
    ],
    nowMs: 8,
  },
  moved(1, 0),
  { kind: 'setMigration', id: 1, action: 'cancel', reason: 'changed my mind', nowMs: 9 },
  { kind: 'endMigration', id: 1, nowMs: 10 },
  { kind: 'throttleMigration', id: 2, bytesPerSecond: 4096 },
  moved(2, 2050),
  { kind: 'splitShard', shard: 3, into: 3, nowMs: 11 },
  { kind: 'mergeShard', shard: 4, into: [5], nowMs: 12 },
  { kind: 'createShard', replication: 1 },
  { kind: 'removeShard', shard: 9 },
  ...Array.from({ length: 60 }, (): MetaCommand[] => [
    { kind: 'drain', node: 3, nowMs: 6 },
    { kind: 'undrain', node: 3, nowMs: 7 },
  ]).flat(),
];

describe('state machine of the metadata group', () => {
  it('D40: keeps the first cluster and refuses every other init, in one batch and later', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    expect(machine.topology).to.deep.equal(noCluster);
    const [first, second] = await apply(machine, engine, [initNamed('one'), initNamed('two')]);
    expect(first).to.deep.equal({ kind: 'done', changed: true, version: 1, issued: {} });
    expect(second === undefined ? '' : reasonOf(second)).to.equal('initTwice');
    expect(reasonOf(await resultOf(machine, engine, initNamed('three')))).to.equal('initTwice');
    expect(machine.topology).to.deep.equal(clusterOf(3, { clusterId: 'one' }));
  });

  it('D40: a repetition of the very same init is no second one, and writes nothing', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    await apply(machine, engine, [initNamed('one')]);
    const before = await hashReplica(engine, machine.range);
    const again = encodeMetaCommand(initOf(firstNodes(3), { clusterId: 'one', nowMs: 77 }));
    expect(await resultOf(machine, engine, again)).to.deep.equal({
      kind: 'done',
      changed: false,
      version: 1,
      issued: {},
    });
    expect(await hashReplica(engine, machine.range)).to.deep.equal(before);
  });

  it('shows readers a topology only when its batch is in the engine', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    const seen: number[] = [];
    machine.onTopology = ({ version }) => seen.push(version);
    const batch = engine.batch();
    await machine.apply([entryOf(initNamed('one'), 1)], batch);
    expect(machine.topology.version).to.equal(0);
    expect(seen).to.deep.equal([]);
    await engine.write(batch, { sync: false });
    machine.written();
    expect(machine.topology.clusterId).to.equal('one');
    expect(seen).to.deep.equal([1]);
  });

  it('R41: equal entries leave equal bytes, however they are batched and on whatever replica', async () => {
    const commands = history.map((command) => encodeMetaCommand(command));
    const hashes = await Promise.all(
      [commands.length, 1, 2, 3, 7].map(async (size, n) => {
        const engine = new MemoryEngine();
        const machine = await open(engine, replicaPrefix(groupId(0), replicaId(n + 1)));
        for (let at = 0; at < commands.length; at += size)
          await apply(machine, engine, commands.slice(at, at + size));
        return (await hashReplica(engine, machine.range)).hash;
      }),
    );
    expect(new Set(hashes).size).to.equal(1);
  });

  it('R42: has its topology again after a restart, at every point of its history', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    for (const command of history) {
      await apply(machine, engine, [encodeMetaCommand(command)]);
      const again = await open(engine);
      expect(again.topology).to.deep.equal(machine.topology);
    }
    expect(machine.topology.version).to.be.greaterThan(100);
    const again = await open(engine);
    expect(reasonOf(await resultOf(again, engine, initNamed('other')))).to.equal('initTwice');
  });

  it('D15: takes the whole of a snapshot for its own, nothing of before is left', async () => {
    const [from, to] = [new MemoryEngine(), new MemoryEngine()];
    await apply(await open(from), from, [initNamed('one')]);
    const machine = await open(to);
    await apply(
      machine,
      to,
      history.slice(0, 6).map((command) => encodeMetaCommand(command)),
    );
    await to.clear(machine.range);
    const batch = to.batch();
    const view = from.iterate({ ...machine.range, pageBytesMax: 1024 });
    for (let page = await view.next(); page.length > 0; page = await view.next())
      for (const { key, value } of page) batch.put(key, value);
    await view.close();
    await to.write(batch, { sync: false });
    await machine.load();
    expect(machine.topology).to.deep.equal(clusterOf(3, { clusterId: 'one' }));
  });

  const bad: readonly (readonly [string, string])[] = [
    ['no JSON', '{"version":1'],
    ['another version', textOf(initNamed('x')).replace('"version":1', '"version":4')],
    ['no version', textOf(initNamed('x')).replace('"version":1,', '')],
    ['another kind', '{"version":1,"command":{"kind":"paint","node":1}}'],
    ['a kind that its version has not', '{"version":1,"command":{"kind":"removeShard","shard":1}}'],
    ['a kind that version 2 has not', '{"version":2,"command":{"kind":"pinGone","slot":16384}}'],
    ['a field of a newer program', textOf(initNamed('x')).replace('{', '{"colour":"red",')],
    ['a part of a newer program', textOf(initNamed('x')).replace('"weight"', '"a":1,"weight"')],
    ['nothing', ''],
  ];
  for (const [what, text] of bad) {
    it(`D16: stops at a command with ${what}, instead of skipping it`, async () => {
      const engine = new MemoryEngine();
      const machine = await open(engine);
      const batch = engine.batch();
      const thrown = await thrownBy(() =>
        machine.apply([entryOf(initNamed('good'), 1), entryOf(Buffer.from(text), 2)], batch),
      );
      expect(String(thrown)).to.contain('upgrade this node');
      expect(batch.length).to.equal(0);
      expect(machine.topology.version).to.equal(0);
    });
  }

  it('D16: writes a command with the lowest version that means it, and reads what older programs wrote', async () => {
    const versionOf = (command: MetaCommand): string | undefined =>
      /"version":(\d+)/.exec(textOf(encodeMetaCommand(command)))?.[1];
    expect(versionOf({ kind: 'setSetting', name: 'repairsMax', value: 5 })).to.equal('1');
    expect(versionOf({ kind: 'setSetting', name: 'migrationsMax', value: 5 })).to.equal('2');
    expect(versionOf({ kind: 'removeShard', shard: 1 })).to.equal('2');
    const recovered = (group: number): MetaCommand => {
      return { kind: 'recoverGroup', group, generation: 1, members: [{ replica: 1, node: 1 }] };
    };
    expect(versionOf(recovered(1))).to.equal('2');
    expect(versionOf(recovered(0)), 'ids of pins').to.equal('3');

    const engine = new MemoryEngine();
    const machine = await open(engine);
    const older = (command: MetaCommand): Uint8Array =>
      Buffer.from(JSON.stringify({ version: 1, command }));
    await apply(machine, engine, [initNamed('one')]);
    const setting = older({ kind: 'setSetting', name: 'migrationsMax', value: 5 });
    expect(reasonOf(await resultOf(machine, engine, setting))).to.equal('badSetting');
  });

  it('D16: writes pieces that a program without migrations reads, until there is one', async () => {
    const engine = new MemoryEngine();
    const machine = await open(engine);
    const formatOf = (): unknown => {
      const head = changedPieces(noCluster, machine.topology).get('map/head') ?? '';
      return (JSON.parse(head) as Record<string, unknown>)['format'];
    };
    const [init] = history;
    if (init === undefined) throw new Error('no history');
    for (const command of [init, ...history.slice(1)]) {
      const before = formatOf();
      await apply(machine, engine, [encodeMetaCommand(command)]);
      const isNew = machine.topology.next.migration > 1;
      expect(formatOf(), `after ${command.kind}, before it ${String(before)}`).to.equal(
        isNew ? 2 : 1,
      );
      if (isNew) break;
    }
    expect(formatOf()).to.equal(2);
  });

  it('D16: a command of the wrong shape is refused by its proposer, before it is in the log', () => {
    for (const weight of [Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => encodeMetaCommand({ kind: 'setWeight', node: 1, weight })).to.throw();
  });

  it('tells its owner when leadership comes and goes', async () => {
    const machine = await open(new MemoryEngine());
    const seen: boolean[] = [];
    machine.onLeading = ({ leading }) => seen.push(leading);
    machine.onLeadership({ leading: true, clockMedianMs: 1 });
    machine.onLeadership({ leading: false, clockMedianMs: 1 });
    expect(seen).to.deep.equal([true, false]);
  });
});
