/**
 * The metadata group as a service: commands in, their outcome or an error that says what to do. The
 * node's replica of the group comes and goes as the topology says; without one, somebody else leads.
 */
import type { Generation, LogIndex, NodeId, ReplicaId } from '../../raft/index.js';
import type { Engine } from '../../storage/index.js';
import { KvError } from '../errors.js';
import type { Group, ProposeOutcome } from '../group/group.js';
import type { Host } from '../group/host.js';
import {
  encodeMetaCommand,
  MetaMachine,
  type MetaCommand,
  type MetaResult,
} from '../meta/meta-machine.js';
import {
  generationOf,
  metadataGroup,
  type ReplicaRecord,
  type Topology,
} from '../meta/topology.js';
import type { LocalReplica, MetadataReplica } from './local-shards.js';

type Done = Extract<MetaResult, { kind: 'done' }>;
type AppliedCommand = Extract<ProposeOutcome<MetaResult>, { kind: 'applied' }>;

export interface MetadataOptions {
  readonly host: Pick<Host, 'addGroup'>;
  readonly engine: Engine;
  /** Client address of a node; empty when it is not known. */
  readonly addressOf: (node: number) => string;
  /** Told of each new topology that this node's replica has applied. */
  readonly onTopology: (topology: Topology) => void;
}

export class Metadata implements MetadataReplica {
  private readonly options: MetadataOptions;
  private group: Group<MetaResult> | undefined;
  private machine: MetaMachine | undefined;

  constructor(options: MetadataOptions) {
    this.options = options;
  }

  async open(
    replica: ReplicaId,
    founders: readonly ReplicaRecord[],
    generation: Generation,
  ): Promise<LocalReplica> {
    const { host, engine, onTopology } = this.options;
    const group = await host.addGroup<MetaResult>({
      id: metadataGroup,
      replica,
      firstMembers: founders.map((founder) => ({ id: founder.replica, node: founder.node })),
      generation,
      createMachine: (prefix) => {
        const machine = new MetaMachine(engine, prefix);
        machine.onTopology = onTopology;
        this.machine = machine;
        return machine;
      },
    });
    this.group = group;
    return group;
  }

  drop(): void {
    this.group = undefined;
    this.machine = undefined;
  }

  /** This node's replica hears from the group, and so of every change; otherwise others must tell. */
  get isInformed(): boolean {
    return this.group?.leaderNode !== undefined;
  }

  get isLeader(): boolean {
    return this.group?.isLeader === true;
  }

  /** The node that leads it, as far as a replica of this node knows. */
  get leaderNode(): number | undefined {
    return this.group?.leaderNode;
  }

  /** Of the membership in force here, committed or not; none without a replica. */
  get memberNodes(): readonly NodeId[] {
    const members = this.group?.status().membership.membership.members ?? [];
    return members.map(({ node }) => node);
  }

  /**
   * Resolves when the command is applied; `ifVersion`: only at this version of the topology, 0: at any.
   * Rejects with KvError: KV_NOT_LEADER with the leader's address, KV_INVALID for a refusal (nothing was
   * changed), KV_UNKNOWN_OUTCOME when leadership was lost.
   */
  async run(command: MetaCommand, ifVersion = 0): Promise<Done> {
    const { result } = await this.propose(command, ifVersion);
    if (result.kind === 'done') return result;
    throw new KvError(result.message, { code: 'KV_INVALID', outcome: 'notApplied' });
  }

  /** The index at which every replica takes the hash of its state. Rejects as `run` does. */
  async takeHash(): Promise<LogIndex> {
    const { index } = await this.propose({ kind: 'hash' }, 0);
    return index;
  }

  /**
   * It was recovered by force, and its own topology does not say so yet (rule D07): what only the lost
   * had is not leapt over yet, and an id given out now may have been given out before (rule D01).
   */
  private get isHeldBack(): boolean {
    const topology = this.machine?.topology;
    if (this.group === undefined || topology === undefined || topology.version === 0) return false;
    return this.group.generation > generationOf(topology, metadataGroup);
  }

  private propose(command: MetaCommand, ifVersion: number): Promise<AppliedCommand> {
    return new Promise((resolve, reject) => {
      const { group } = this;
      if (group?.isLeader !== true) {
        reject(this.notLeader());
        return;
      }
      const endsIt = command.kind === 'recoverGroup' && command.group === metadataGroup;
      if (this.isHeldBack && !endsIt) {
        reject(notRecordedYet());
        return;
      }
      const bytes = encodeMetaCommand(command, ifVersion === 0 ? undefined : ifVersion);
      group.propose(bytes, (outcome) => {
        if (outcome.kind === 'applied') {
          resolve(outcome);
        } else if (outcome.kind === 'unknown') {
          reject(leadershipLost());
        } else {
          reject(this.notLeader());
        }
      });
    });
  }

  private notLeader(): KvError {
    const leaderNode = this.leaderNode ?? 0;
    if (leaderNode === 0) {
      return new KvError('the metadata group has no leader that this node knows: try again', {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs: 200,
      });
    }
    const leaderAddress = this.options.addressOf(leaderNode);
    return new KvError(
      `this node does not lead the metadata group: ask node ${leaderNode} at ${leaderAddress}`,
      { code: 'KV_NOT_LEADER', outcome: 'notApplied', leaderNode, leaderAddress },
    );
  }
}

function notRecordedYet(): KvError {
  return new KvError('the metadata group was recovered, and has not recorded it yet: try again', {
    code: 'KV_UNAVAILABLE',
    outcome: 'notApplied',
    retryAfterMs: 200,
  });
}

function leadershipLost(): KvError {
  return new KvError('leadership of the metadata group was lost meanwhile: look, then try again', {
    code: 'KV_UNKNOWN_OUTCOME',
    outcome: 'unknown',
  });
}
