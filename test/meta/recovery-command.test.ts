import { expect } from 'chai';
import { applyCommand } from '../../src/meta/apply-command.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { changedPieces, joinPieces } from '../../src/meta/topology-pieces.js';
import { noCluster, type Topology } from '../../src/meta/topology.js';
import { after, firstNode, initOf } from './clusters.js';

const three = after(
  noCluster,
  initOf([firstNode(1), firstNode(2), firstNode(3)], { shards: 1, replication: 3 }),
);

function recovered(topology: Topology, group: number, generation: number): Topology {
  const [survivor] = group === 0 ? topology.metadata : (topology.shards[0]?.replicas ?? []);
  if (survivor === undefined) throw new Error(`group ${group} has no replica`);
  const members = [survivor];
  const command: MetaCommand = { kind: 'recoverGroup', group, generation, members };
  return applyCommand(topology, { command }).topology;
}

describe('D07: the topology after a recovery', () => {
  it('names the survivor alone, wants as many replicas as before, and changes nothing twice', () => {
    const now = recovered(three, 1, 1);
    const [before] = three.shards;
    expect(now.shards).to.deep.equal([
      { ...before, replicas: before?.replicas.slice(0, 1), generation: 1 },
    ]);
    expect(recovered(now, 1, 1), 'said again').to.equal(now);
    expect(recovered(recovered(three, 1, 2), 1, 1).shards[0]?.generation).to.equal(2);
  });

  it('D01: gives out no id, and tells no version, that the lost majority may have used', () => {
    const now = recovered(three, 0, 1);
    expect(now.metadata).to.have.length(1);
    expect(now.version).to.be.greaterThan(three.version + 1_000_000);
    for (const kind of ['node', 'replica', 'shard', 'operation', 'migration'] as const)
      expect(now.next[kind]).to.equal(three.next[kind] + 1_000_001);
  });

  it('D01 D16: gives out no id of a pin that the lost may have, unless a program without pins wrote the command', () => {
    const members = three.metadata.slice(0, 1);
    const command: MetaCommand = { kind: 'recoverGroup', group: 0, generation: 1, members };
    const idAfter = (version?: 2): number =>
      applyCommand(three, { command, ...(version && { version }) }).topology.next.pin;
    expect(idAfter()).to.equal(three.next.pin + 1000);
    expect(idAfter(2), 'as that program has applied it').to.equal(three.next.pin);
  });

  it('D01: of two recoveries of the metadata group the later one is newer, and gives out other ids', () => {
    const [one, other] = [1_900_000_000 * 2 ** 20 + 5, 1_900_000_001 * 2 ** 20 + 70_000];
    const earlier = recovered(three, 0, one);
    const later = recovered(three, 0, other);
    expect(later.version).to.be.greaterThan(earlier.version + 1_000_000);
    expect(Math.abs(later.next.replica - earlier.next.replica)).to.be.greaterThan(1000);
    expect(later.next.replica).to.be.below(three.next.replica + 2_000_000);
  });

  it('has each shard say its members again when the metadata group may have forgotten a change', () => {
    const now = recovered(three, 0, 5);
    const told = (members: readonly { replica: number; node: number }[]): Topology =>
      after(now, { kind: 'recoverGroup', group: 1, generation: 0, members: [...members] });
    // Of the node where the record has replica 3, the lost had built a successor: nobody else knew.
    const [one, two] = three.shards[0]?.replicas ?? [];
    if (one === undefined || two === undefined) throw new Error('three replicas');
    const moved = told([one, two, { replica: three.next.replica + 7, node: 3 }]);
    expect(moved.shards[0]?.replicas.map(({ replica }) => replica)).to.deep.equal([
      one.replica,
      two.replica,
      three.next.replica + 7,
    ]);
    expect(moved.shards[0]).to.not.have.property('generation');
    // In another order, but the same: nothing is changed, and what is under way goes on.
    const same = told((three.shards[0]?.replicas ?? []).toReversed());
    expect(same.shards).to.deep.equal(three.shards);
  });

  it('is read back from its pieces as it was', () => {
    for (const now of [recovered(recovered(three, 0, 1), 1, 3), recovered(three, 0, 1)])
      expectReadBack(now);
  });
});

function expectReadBack(now: Topology): void {
  const pieces = [...changedPieces(noCluster, now)].map(([name, text]): [string, string] => [
    name,
    text ?? '',
  ]);
  expect(joinPieces(pieces.toSorted(([a], [b]) => (a < b ? -1 : 1)))).to.deep.equal(now);
}
