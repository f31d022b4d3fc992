/** The metadata group as a service: commands in, their outcome or an error that says what to do. */
import { KvError } from '../errors.js';
import type { LogIndex } from '../../raft/index.js';
import type { Group, ProposeOutcome } from '../group/group.js';
import { encodeMetaCommand, type MetaCommand, type MetaResult } from '../meta/meta-machine.js';

type Done = Extract<MetaResult, { kind: 'done' }>;
type AppliedCommand = Extract<ProposeOutcome<MetaResult>, { kind: 'applied' }>;

export class Metadata {
  private readonly group: Group<MetaResult>;
  private readonly addressOf: (node: number) => string;

  constructor(group: Group<MetaResult>, addressOf: (node: number) => string) {
    this.group = group;
    this.addressOf = addressOf;
  }

  get isLeader(): boolean {
    return this.group.isLeader;
  }

  /** The node that leads it, as far as this replica knows. */
  get leaderNode(): number | undefined {
    return this.group.leaderNode;
  }

  /**
   * Resolves when the command is applied; `ifVersion`: only at this version of the topology, 0: at any. Rejects with KvError: KV_NOT_LEADER with the leader's address,
   * KV_INVALID for a refusal (nothing was changed), KV_UNKNOWN_OUTCOME when leadership was lost.
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

  private propose(command: MetaCommand, ifVersion: number): Promise<AppliedCommand> {
    return new Promise((resolve, reject) => {
      const { group } = this;
      if (!group.isLeader) {
        reject(this.notLeader());
        return;
      }
      const bytes = encodeMetaCommand(command, ifVersion === 0 ? undefined : ifVersion);
      group.propose(bytes, (outcome) => {
        if (outcome.kind === 'applied') {
          resolve(outcome);
        } else if (outcome.kind === 'unknown') {
          reject(
            new KvError(
              'leadership of the metadata group was lost meanwhile: look, then try again',
              {
                code: 'KV_UNKNOWN_OUTCOME',
                outcome: 'unknown',
              },
            ),
          );
        } else {
          reject(this.notLeader());
        }
      });
    });
  }

  private notLeader(): KvError {
    const leaderNode = this.group.leaderNode ?? 0;
    if (leaderNode === 0) {
      return new KvError('the metadata group has no leader just now: try again', {
        code: 'KV_UNAVAILABLE',
        outcome: 'notApplied',
        retryAfterMs: 200,
      });
    }
    const leaderAddress = this.addressOf(leaderNode);
    return new KvError(
      `this node does not lead the metadata group: ask node ${leaderNode} at ${leaderAddress}`,
      { code: 'KV_NOT_LEADER', outcome: 'notApplied', leaderNode, leaderAddress },
    );
  }
}
