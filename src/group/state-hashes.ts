/**
 * Hashes of the state at indexes that the log names: every replica meets the same command at the same
 * index, so the hashes can be compared while writes go on. Kept for a while, to be asked for by index.
 *
 * Which indexes were hashed is no part of the state: a replica that was restarted, or came past the
 * index by a snapshot, has none to show.
 */
import type { LogIndex } from '../../raft/index.js';
import { hashReplica } from '../../storage/index.js';
import type { GroupContext } from './group-context.js';
import type { HashAt, ReplicaHash } from './group.js';

/** Each one that is being computed holds a view of the engine. */
const runningMax = 2;
const keptMax = 16;

/** `ended`: it is done, or a newer one was wanted more. */
interface Running {
  givenUp: boolean;
  readonly ended: Promise<void>;
}

export class StateHashes<R> {
  private readonly running = new Map<LogIndex, Running>();
  private readonly kept = new Map<LogIndex, ReplicaHash>();
  private readonly context: GroupContext<R>;
  private closed = false;

  constructor(context: GroupContext<R>) {
    this.context = context;
  }

  /**
   * To be called between two batches, with `index` just applied: the view is taken here and now, and
   * read in slices while other batches are applied.
   */
  take(index: LogIndex): void {
    if (this.closed) return;
    // The newest is what somebody waits for: a replica that catches up meets old ones on its way.
    for (const old of [...this.running.values()].slice(0, 1 - runningMax)) old.givenUp = true;
    const { surroundings, machine, id } = this.context;
    const { keys } = machine;
    const sliced = async (): Promise<void> => {
      await new Promise<void>((resolve) => {
        surroundings.clock.endOfTurn(resolve);
      });
      if (running.givenUp) throw new GivenUp();
    };
    const ended = hashReplica(surroundings.engine, machine.range, sliced)
      .then(({ hash, pairs }) => {
        this.keep({ appliedIndex: index, hash, pairs, keys });
        surroundings.logLine('info', { group: id, index, hash, keys }, 'hashed its state');
      })
      .catch((error: unknown) => {
        if (!(error instanceof GivenUp)) throw error;
      })
      .finally(() => {
        this.running.delete(index);
      });
    const running: Running = { givenUp: false, ended };
    this.running.set(index, running);
    this.context.background(ended);
  }

  at(index: LogIndex): HashAt {
    const hash = this.kept.get(index);
    if (hash !== undefined) return { kind: 'hash', hash };
    const isToCome = this.running.get(index)?.givenUp === false;
    return { kind: isToCome || this.context.appliedIndex < index ? 'pending' : 'missing' };
  }

  /** What is being computed is given up, and nothing is begun any more. */
  close(): void {
    this.closed = true;
    for (const running of this.running.values()) running.givenUp = true;
  }

  /** Resolves when no view is open any more. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.running.values()].map(({ ended }) => ended));
  }

  private keep(hash: ReplicaHash): void {
    this.kept.set(hash.appliedIndex, hash);
    const [oldest] = this.kept.keys();
    if (this.kept.size > keptMax && oldest !== undefined) this.kept.delete(oldest);
  }
}

class GivenUp extends Error {
  override readonly name = 'GivenUp';
}
