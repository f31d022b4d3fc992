import { expect } from 'chai';
import { groupId, replicaId } from '../../raft/index.js';
import { MemoryEngine, replicaPrefix } from '../../storage/index.js';
import { slot, slotOf } from '../../src/router/slot.js';
import { encodeFound, encodeWrites } from '../../src/shard/command-codec.js';
import { ShardMachine } from '../../src/shard/shard-machine.js';
import { SlotOwnership } from '../../src/shard/slot-state.js';
import { bytes, put, write } from './command-texts.js';
import { entryOf } from './replica.js';

const everything = [{ first: 0, last: 16_383 }];
const withoutA = [
  { first: 0, last: slotOf(bytes('a')) - 1 },
  { first: slotOf(bytes('a')) + 1, last: 16_383 },
];

async function machineOn(engine: MemoryEngine): Promise<ShardMachine> {
  const machine = new ShardMachine(engine, replicaPrefix(groupId(4), replicaId(2)));
  await machine.load();
  return machine;
}

/** Applies commands as one batch and gives back what each write became. */
async function apply(
  machine: ShardMachine,
  engine: MemoryEngine,
  commands: readonly Uint8Array[],
): Promise<readonly string[]> {
  const batch = engine.batch();
  const entries = commands.map((data, n) => entryOf(data, n + 1));
  const { results } = await machine.apply(entries, batch);
  await engine.write(batch, { sync: false });
  machine.written();
  return results.flatMap((result) =>
    result.results.map((each) => (each.kind === 'refused' ? each.refusal : each.kind)),
  );
}

const putA = encodeWrites([write(put('a', '1'))], 1000);
const putB = encodeWrites([write(put('b', '1'))], 1000);

describe('the founding of a shard', () => {
  it('comes before everything: a shard that is not born owns nothing and takes nothing', async () => {
    const engine = new MemoryEngine();
    const machine = await machineOn(engine);
    expect(machine.isFounded).to.equal(false);
    expect(machine.ownedSlots).to.equal(0);
    expect(await apply(machine, engine, [putA])).to.deep.equal(['wrongShard']);
  });

  it('gives it its slots at epoch 1, in the very batch in which it stands, and no others', async () => {
    const engine = new MemoryEngine();
    const machine = await machineOn(engine);
    const results = await apply(machine, engine, [encodeFound(withoutA, 1000), putA, putB]);
    expect(results).to.deep.equal(['wrongShard', 'put']);
    expect(machine.ownedSlots).to.equal(16_383);
    expect(machine.slotState(slotOf(bytes('b')))).to.include({
      ownership: SlotOwnership.owned,
      epoch: 1,
    });
    expect(machine.slotState(slotOf(bytes('a'))).ownership).to.equal(SlotOwnership.absent);
  });

  it('D30: happens once: a later one changes nothing, and neither does a restart', async () => {
    const engine = new MemoryEngine();
    const machine = await machineOn(engine);
    await apply(machine, engine, [encodeFound(withoutA, 1000)]);
    await apply(machine, engine, [encodeFound(everything, 1000)]);
    const again = await machineOn(engine);
    for (const each of [machine, again]) {
      expect(each.isFounded).to.equal(true);
      expect(each.ownedSlots).to.equal(16_383);
    }
    expect(await apply(again, engine, [putA, putB])).to.deep.equal(['wrongShard', 'put']);
  });

  it('may give a shard no slots at all: it waits for migrations', async () => {
    const engine = new MemoryEngine();
    const machine = await machineOn(engine);
    await apply(machine, engine, [encodeFound([], 1000)]);
    const again = await machineOn(engine);
    expect(again.isFounded).to.equal(true);
    expect(again.ownedSlots).to.equal(0);
    expect(again.slotState(slot(0)).epoch).to.equal(0);
  });
});
