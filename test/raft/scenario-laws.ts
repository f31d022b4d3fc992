/**
 * Laws that hold in every scenario whatever its file expects: a recorded expectation can be wrong,
 * these cannot be re-recorded. Breaking one throws. They hold within a generation, not between two
 * (rule D07).
 */
import type { Entry, LogIndex, Message, ReplicaId, Term } from '../../raft/index.js';
import { describeEntry, describeMessage } from '../../raft/describe.js';
import type { ScenarioDisk } from './scenario-disk.js';

export class ScenarioLaws {
  private readonly leaders = new Map<Term, ReplicaId>();
  private readonly appliedEntries = new Map<LogIndex, string>();
  /** The highest index that any member applied: a write up to here may have been acknowledged. */
  private appliedMax: LogIndex = 0;
  private readonly readFloors = new Map<string, LogIndex>();

  /** Of the next generation: it begins with what its survivor had applied, which must stay true. */
  after(applied: LogIndex): ScenarioLaws {
    const next = new ScenarioLaws();
    for (const [index, text] of this.appliedEntries) {
      if (index <= applied) next.appliedEntries.set(index, text);
    }
    next.appliedMax = applied;
    return next;
  }

  /** Election safety (paper, figure 3): at most one leader in a term. */
  leads(id: ReplicaId, term: Term): void {
    const other = this.leaders.get(term) ?? id;
    if (other !== id) throw new Error(`${other} and ${id} both lead term ${term}`);
    this.leaders.set(term, id);
  }

  /** State machine safety (paper, figure 3): nobody applies another entry at the same index. */
  applied(id: ReplicaId, entry: Entry): void {
    const text = describeEntry(entry);
    const known = this.appliedEntries.get(entry.index) ?? text;
    if (known !== text) throw new Error(`${id} applies ${text}, another applied ${known}`);
    this.appliedEntries.set(entry.index, text);
    this.appliedMax = Math.max(this.appliedMax, entry.index);
  }

  installed(id: ReplicaId, index: LogIndex): void {
    if (index > this.appliedMax) throw new Error(`${id} installs ${index}, applied by nobody`);
  }

  /**
   * A promise is about a disk: nothing is acknowledged, voted or asked for that is not durable. One
   * of a term that the disk has left behind is kept already, because that term cannot come back.
   */
  sent(id: ReplicaId, message: Message, disk: ScenarioDisk): void {
    const { hardState, lastIndex } = disk;
    if (message.term < hardState.term) return;
    const broken =
      (message.type === 'appendReply' && !message.rejected && message.index > lastIndex) ||
      (message.type === 'voteReply' &&
        message.granted &&
        (hardState.term !== message.term || hardState.vote !== message.to)) ||
      (message.type === 'vote' && (hardState.term !== message.term || hardState.vote !== id));
    if (broken) throw new Error(`promised before it was durable: ${describeMessage(message)}`);
  }

  readBegins(context: string): void {
    this.readFloors.set(context, this.appliedMax);
  }

  /** Linearizability: a read sees all that anybody was told before it began. */
  readAnswered(context: string, applied: LogIndex): void {
    const floor = this.readFloors.get(context);
    if (floor === undefined) throw new Error(`read ${context} was never asked`);
    if (applied < floor) throw new Error(`stale read ${context}: at ${applied} of ${floor}`);
    this.readFloors.delete(context);
  }
}
