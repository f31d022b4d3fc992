import { expect } from 'chai';
import { nodeId, replicaId, type GroupId } from '../../raft/index.js';
import { Controller } from '../../src/cluster/controller.js';
import type { ShardReport } from '../../src/cluster/decisions.js';
import { KvError } from '../../src/errors.js';
import type { MetaCommand } from '../../src/meta/commands.js';
import { nodeOf, shardRecordOf, type Topology } from '../../src/meta/topology.js';
import { ManualClock } from '../support/manual-clock.js';
import { after, apply, clusterOf, joinOf } from '../meta/clusters.js';

interface LogLine {
  readonly level: string;
  readonly message: string;
}

/** One controller, on node 1, over a metadata group that does at once as it is told. */
class Stage {
  readonly clock = new ManualClock();
  readonly away = new Set<number>();
  readonly ran: MetaCommand[] = [];
  readonly lines: LogLine[] = [];
  readonly asked: number[] = [];
  topology: Topology = after(clusterOf(3, { shards: 1 }), joinOf(4));
  isLeader = true;
  /** Instead of running the next commands. */
  obstacle: (() => Promise<void>) | undefined;
  report = (shard: GroupId): Promise<ShardReport | undefined> => Promise.resolve(this.said(shard));
  private readonly controller: Controller;

  constructor() {
    const stage = this;
    this.controller = new Controller({
      node: nodeId(1),
      metadata: {
        get isLeader() {
          return stage.isLeader;
        },
        get memberNodes() {
          return stage.topology.metadata.map(({ node }) => node);
        },
        run: (command) => this.run(command),
      },
      view: {
        get topology() {
          return stage.topology;
        },
      },
      clock: this.clock,
      log: (level, _, message) => this.lines.push({ level, message }),
      // A node has no connection to itself.
      isConnected: (node) => node !== 1 && !this.away.has(node),
      report: (shard) => {
        this.asked.push(shard);
        return this.report(shard);
      },
    });
    this.controller.start();
  }

  close(): void {
    this.controller.close();
  }

  async pass(seconds: number): Promise<void> {
    for (let second = 0; second < seconds; second++) {
      this.clock.jump(1_000);
      await this.clock.settle();
    }
  }

  stateOf(node: number): string | undefined {
    return nodeOf(this.topology, node)?.state;
  }

  get warnings(): readonly string[] {
    return this.lines.filter(({ level }) => level === 'warn').map(({ message }) => message);
  }

  private said(shard: number): ShardReport {
    const { metadata } = this.topology;
    const replicas = shard === 0 ? metadata : (shardRecordOf(this.topology, shard)?.replicas ?? []);
    return { voters: replicas.map(({ replica }) => replica), learners: [] };
  }

  private async run(command: MetaCommand): Promise<Awaited<ReturnType<Done>>> {
    this.ran.push(command);
    await this.obstacle?.();
    const { topology, result } = apply(this.topology, command);
    this.topology = topology;
    if (result.kind === 'done') return result;
    throw new KvError(result.message, { code: 'KV_INVALID', outcome: 'notApplied' });
  }
}

type Done = ConstructorParameters<typeof Controller>[0]['metadata']['run'];

async function onStage(play: (stage: Stage) => Promise<void>): Promise<void> {
  const stage = new Stage();
  try {
    await play(stage);
  } finally {
    stage.close();
  }
}

describe('the controller of the cluster', () => {
  it('does nothing while all is well, and asks nobody', () =>
    onStage(async (stage) => {
      await stage.pass(20);
      expect(stage.ran).to.deep.equal([]);
      expect(stage.asked).to.deep.equal([]);
      expect(stage.lines).to.deep.equal([]);
    }));

  it('replaces what a lost node had, from suspicion to the end, and logs each step once', () =>
    onStage(async (stage) => {
      stage.away.add(2);
      await stage.pass(5);
      expect(stage.stateOf(2)).to.equal('suspect');
      await stage.pass(290);
      expect(stage.stateOf(2)).to.equal('down');
      expect(stage.ran.length).to.equal(2);
      await stage.pass(10);
      expect(stage.ran.map(({ kind }) => kind)).to.deep.equal([
        'setNodeState',
        'setNodeState',
        'replaceReplica',
        'setMetadata',
        'endOperation',
      ]);
      const nodes = shardRecordOf(stage.topology, 1)?.replicas.map(({ node }) => node);
      expect(nodes).to.have.members([1, 3, 4]);
      const infos = stage.lines.filter(({ level }) => level === 'info');
      expect(infos.map(({ message }) => message).slice(0, 3)).to.deep.equal([
        'node 2 is suspect',
        'node 2 is down',
        'the replica of shard 1 on node 2 moves to node 4',
      ]);
      expect(infos[3]?.message).to.equal('the metadata group moves to nodes 1, 4, 3');
      expect(infos.length).to.equal(5);
    }));

  it('D06: counts from the moment on which it leads', () =>
    onStage(async (stage) => {
      stage.isLeader = false;
      stage.away.add(2);
      await stage.pass(60);
      expect(stage.ran).to.deep.equal([]);
      stage.isLeader = true;
      await stage.pass(3);
      expect(stage.ran).to.deep.equal([]);
      await stage.pass(1);
      expect(stage.stateOf(2)).to.equal('suspect');
    }));

  it('D06: starts down-times anew after the process stood still', () =>
    onStage(async (stage) => {
      stage.away.add(2);
      await stage.pass(9);
      expect(stage.stateOf(2)).to.equal('suspect');
      stage.clock.stall(600_000);
      await stage.pass(1);
      expect(stage.stateOf(2)).to.equal('suspect');
      expect(stage.warnings).to.deep.equal(['the metadata leader stalled: down-times start anew']);
      await stage.pass(9);
      expect(stage.stateOf(2)).to.equal('suspect');
      await stage.pass(1);
      expect(stage.stateOf(2)).to.equal('down');
    }));

  it('D06: starts down-times anew after a round that took too long', () =>
    onStage(async (stage) => {
      stage.away.add(2);
      let release: () => void = () => undefined;
      stage.obstacle = () => new Promise((resolve) => (release = resolve));
      await stage.pass(9);
      expect(stage.ran.length, 'one round at a time').to.equal(1);
      stage.obstacle = undefined;
      release();
      await stage.clock.settle();
      expect(stage.warnings.length).to.equal(1);
      await stage.pass(10);
      expect(stage.stateOf(2)).to.equal('suspect');
      await stage.pass(1);
      expect(stage.stateOf(2)).to.equal('down');
    }));

  it('D06: starts down-times anew when a command says that leadership was lost', () =>
    onStage(async (stage) => {
      stage.away.add(2);
      await stage.pass(9);
      stage.obstacle = () =>
        Promise.reject(
          new KvError('lost meanwhile', { code: 'KV_UNKNOWN_OUTCOME', outcome: 'unknown' }),
        );
      await stage.pass(4);
      expect(stage.warnings).to.deep.equal(['not done: node 2 is down: lost meanwhile']);
      stage.obstacle = undefined;
      await stage.pass(7);
      expect(stage.stateOf(2)).to.equal('suspect');
      await stage.pass(8);
      expect(stage.stateOf(2)).to.equal('down');
    }));

  it('logs a refusal once, goes on with other commands, and tries again', () =>
    onStage(async (stage) => {
      stage.away.add(2).add(3);
      stage.obstacle = () => {
        const last = stage.ran.at(-1);
        return last?.kind === 'setNodeState' && last.node === 2
          ? Promise.reject(new KvError('no', { code: 'KV_INVALID', outcome: 'notApplied' }))
          : Promise.resolve();
      };
      await stage.pass(8);
      expect(stage.stateOf(3)).to.equal('suspect');
      expect(stage.warnings).to.deep.equal(['not done: node 2 is suspect: no']);
      expect(stage.ran.length).to.be.greaterThan(3);
      stage.obstacle = undefined;
      await stage.pass(1);
      expect(stage.stateOf(2)).to.equal('suspect');
    }));

  it('is not held up by a shard that does not answer, nor by one that answers with an error', () =>
    onStage(async (stage) => {
      stage.topology = after(stage.topology, { kind: 'drain', node: 3, nowMs: 3_000 });
      stage.report = () => new Promise(() => undefined);
      stage.clock.jump(1_000);
      await stage.clock.settle();
      expect(stage.asked).to.deep.equal([0, 1]);
      expect(stage.ran).to.deep.equal([]);
      stage.clock.jump(500);
      await stage.clock.settle();
      expect(stage.ran.map(({ kind }) => kind)).to.deep.equal(['endOperation']);
      stage.report = () => Promise.reject(new Error('nobody there'));
      await stage.pass(5);
      expect(stage.warnings).to.deep.equal([
        'group 0 was not asked: nobody there',
        'group 1 was not asked: nobody there',
      ]);
      expect(stage.ran.length).to.equal(1);
    }));

  it('decides again before each command: what was so a moment ago is not done', () =>
    onStage(async (stage) => {
      stage.away.add(2);
      await stage.pass(299);
      // The node comes back while the shard is being asked.
      const { report } = stage;
      stage.report = (shard) => {
        stage.away.delete(2);
        return report(shard);
      };
      await stage.pass(5);
      expect(stage.asked).to.deep.equal([0, 1]);
      expect(stage.stateOf(2)).to.equal('up');
      expect(stage.ran.map(({ kind }) => kind)).to.not.include('replaceReplica');
    }));

  it('decides nothing more once leadership is lost or it is closed, not even in the same round', () =>
    onStage(async (stage) => {
      stage.away.add(2).add(3);
      stage.obstacle = async () => {
        stage.isLeader = false;
      };
      await stage.pass(10);
      expect(stage.ran.length).to.equal(1);
      stage.isLeader = true;
      stage.obstacle = async () => {
        stage.close();
      };
      await stage.pass(30);
      expect(stage.ran.length).to.equal(2);
    }));

  it('knows a replacement by the ids of its replicas, not by its nodes', () =>
    onStage(async (stage) => {
      stage.topology = after(stage.topology, {
        kind: 'replaceReplica',
        shard: 1,
        from: 2,
        to: 4,
        nowMs: 3_000,
      });
      // Still the members from before.
      stage.report = () => Promise.resolve({ voters: [4, 5, 6].map(replicaId), learners: [] });
      await stage.pass(3);
      expect(stage.ran).to.deep.equal([]);
    }));

  it('says once of a migration that it gets nowhere, and anew when it stops again', () =>
    onStage(async (stage) => {
      const slots = [{ first: 0, last: 9 }];
      stage.topology = after(
        stage.topology,
        { kind: 'createShard', replication: 3 },
        { kind: 'setSetting', name: 'migrationGiveUpMs', value: 1000 },
        { kind: 'startMigrations', moves: [{ slots, source: 1, target: 2 }], nowMs: 1 },
      );
      await stage.pass(10);
      expect(stage.warnings).to.deep.equal([]);
      await stage.pass(10);
      expect(stage.warnings).to.deep.equal([
        'migration 1 (from slot 0 on, shard 1 to shard 2) is running and has got nowhere for 10 s: ' +
          'look at the leaders of both shards',
      ]);
      stage.topology = after(stage.topology, {
        kind: 'moveSlots',
        id: 1,
        slots: [{ first: 0, last: 0 }],
        keys: 0,
        bytes: 0,
        freezeMs: 0,
        nowMs: 1,
      });
      await stage.pass(10);
      expect(stage.warnings).to.have.length(1);
      await stage.pass(10);
      expect(stage.warnings).to.have.length(2);
    }));
});
