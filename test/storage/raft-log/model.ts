/**
 * The slow, obvious Raft log: arrays of entries. Random operations go to it and to the real one.
 */
import { decodeMembership, EntryKind, noReplica } from '../../../raft/index.js';
import type { Entry, GroupId, HardState, MembershipAt, ReplicaId } from '../../../raft/index.js';
import type { TermRun } from '../../../raft/index.js';
import type { LogWrite, RaftLog } from '../../../storage/index.js';
import { command, group, membership, membershipEntry, replica, texts } from './fixture.js';
import type { RandomNumber } from './simulated-disk.js';

interface ModelGroup {
  readonly replica: ReplicaId;
  readonly hardState: HardState;
  readonly firstIndex: number;
  readonly appliedDurable: number;
  /** Term and membership at firstIndex - 1. */
  readonly baseTerm: number;
  readonly baseMembership: MembershipAt;
  readonly entries: readonly Entry[];
}

export type Operation =
  | { readonly kind: 'append'; readonly write: LogWrite }
  | {
      readonly kind: 'compact';
      readonly group: GroupId;
      readonly firstIndex: number;
      readonly appliedDurable: number;
    }
  | { readonly kind: 'create'; readonly group: GroupId; readonly replica: ReplicaId }
  | { readonly kind: 'remove'; readonly group: GroupId };

/** A state of the whole log. Immutable: `after` gives the next one. */
export class Model {
  private readonly groups: ReadonlyMap<GroupId, ModelGroup>;
  private readonly floors: ReadonlyMap<GroupId, ReplicaId>;

  constructor(
    groups: ReadonlyMap<GroupId, ModelGroup> = new Map(),
    floors: ReadonlyMap<GroupId, ReplicaId> = new Map(),
  ) {
    this.groups = groups;
    this.floors = floors;
  }

  after(operation: Operation): Model {
    const groups = new Map(this.groups);
    const floors = new Map(this.floors);
    if (operation.kind === 'create') {
      groups.set(operation.group, {
        replica: operation.replica,
        hardState: { term: 0, vote: noReplica, commit: 0 },
        firstIndex: 1,
        appliedDurable: 0,
        baseTerm: 0,
        baseMembership: { index: 0, membership: membership(1, 2, 3) },
        entries: [],
      });
      return new Model(groups, floors);
    }
    const id = operation.kind === 'append' ? operation.write.group : operation.group;
    const old = groups.get(id);
    if (old === undefined) throw new Error(`the model has no group ${id}`);
    if (operation.kind === 'remove') {
      groups.delete(id);
      floors.set(id, old.replica);
    } else if (operation.kind === 'compact') {
      groups.set(id, compacted(old, operation));
    } else {
      groups.set(id, written(old, operation.write));
    }
    return new Model(groups, floors);
  }

  /** One line per group with all that a restart must give back; to compare and to read. */
  describe(): string {
    const lines = [...this.groups].map(([id, state]) =>
      describeGroup({
        group: id,
        ...state,
        lastIndex: lastOf(state),
        termRuns: termRunsOf(state),
        memberships: membershipsOf(state),
        tail: state.entries,
      }),
    );
    return describeAll(lines, this.floors);
  }

  /** A valid operation, chosen by `random`. `groupCount`: groups 1 to that many. */
  randomOperation(random: RandomNumber, groupCount: number): Operation {
    const id = group(1 + (random() % groupCount));
    const state = this.groups.get(id);
    if (state === undefined) {
      const floor = this.floors.get(id) ?? 0;
      return { kind: 'create', group: id, replica: replica(floor + 1 + (random() % 3)) };
    }
    const last = lastOf(state);
    const choice = random() % 100;
    if (choice < 2) return { kind: 'remove', group: id };
    if (choice < 14 && last >= state.firstIndex) {
      const firstIndex = state.firstIndex + 1 + (random() % (last + 1 - state.firstIndex));
      const appliedDurable = firstIndex - 1 + (random() % 3);
      return { kind: 'compact', group: id, firstIndex, appliedDurable };
    }
    return { kind: 'append', write: randomWrite(random, id, state) };
  }
}

/** The same line of what a real log recovered. */
export function describeRecovered(log: RaftLog, groupCount: number): string {
  const floors = new Map<GroupId, ReplicaId>();
  for (let id = 1; id <= groupCount; id++) {
    const floor = log.removedFloor(group(id));
    if (floor !== noReplica) floors.set(group(id), floor);
  }
  return describeAll(log.recovered.map(describeGroup), floors);
}

function describeAll(lines: readonly string[], floors: ReadonlyMap<GroupId, ReplicaId>): string {
  const removed = [...floors].sort(([a], [b]) => a - b).map(([id, floor]) => `${id}<=${floor}`);
  return [...lines]
    .sort()
    .concat(`removed ${removed.join(' ')}`)
    .join('\n');
}

function describeGroup(state: {
  readonly group: GroupId;
  readonly replica: ReplicaId;
  readonly hardState: HardState;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly appliedDurable: number;
  readonly termRuns: readonly TermRun[];
  readonly memberships: readonly MembershipAt[];
  readonly tail: readonly Entry[];
}): string {
  const { term, vote, commit } = state.hardState;
  const runs = state.termRuns.map((run) => `${run.from}:${run.term}`).join(' ');
  const members = state.memberships.map((at) => `${at.index}:${JSON.stringify(at.membership)}`);
  return (
    `group ${state.group} replica ${state.replica} term ${term} vote ${vote} ` +
    `commit ${Math.min(commit, state.lastIndex)} ` +
    `log [${state.firstIndex}, ${state.lastIndex}] applied ${state.appliedDurable} ` +
    `runs ${runs} members ${members.join(' ')} entries ${texts(state.tail).join(' ')}`
  );
}

function lastOf(state: ModelGroup): number {
  return state.firstIndex - 1 + state.entries.length;
}

function termRunsOf(state: ModelGroup): readonly TermRun[] {
  const runs: TermRun[] = [{ from: state.firstIndex - 1, term: state.baseTerm }];
  for (const { index, term } of state.entries) {
    if (term !== runs.at(-1)?.term) runs.push({ from: index, term });
  }
  return runs;
}

function membershipsOf(state: ModelGroup): readonly MembershipAt[] {
  const changes = state.entries.filter((entry) => entry.kind === EntryKind.membership);
  return [
    state.baseMembership,
    ...changes.map(({ index, data }) => ({ index, membership: decodeMembership(data) })),
  ];
}

function compacted(
  state: ModelGroup,
  mark: { readonly firstIndex: number; readonly appliedDurable: number },
): ModelGroup {
  const { firstIndex, appliedDurable } = mark;
  const cut = state.entries.filter((entry) => entry.index < firstIndex);
  return {
    ...state,
    firstIndex,
    appliedDurable: Math.max(state.appliedDurable, appliedDurable),
    baseTerm: cut.at(-1)?.term ?? state.baseTerm,
    baseMembership: membershipsOf({ ...state, entries: cut }).at(-1) ?? state.baseMembership,
    entries: state.entries.slice(cut.length),
  };
}

function written(state: ModelGroup, write: LogWrite): ModelGroup {
  let next = state;
  if (write.reset !== undefined) {
    next = {
      ...next,
      firstIndex: write.reset.index + 1,
      baseTerm: write.reset.term,
      baseMembership: write.reset.membership,
      appliedDurable: Math.max(next.appliedDurable, write.reset.index),
      entries: [],
    };
  }
  const from = write.entries?.[0]?.index ?? Infinity;
  const kept = next.entries.filter((entry) => entry.index < from);
  return {
    ...next,
    entries: [...kept, ...(write.entries ?? [])],
    hardState: write.hardState ?? next.hardState,
  };
}

function randomWrite(random: RandomNumber, id: GroupId, state: ModelGroup): LogWrite {
  const last = lastOf(state);
  const lastTerm = termRunsOf(state).at(-1)?.term ?? 0;
  const term = Math.max(lastTerm, state.hardState.term) + (random() % 8 === 0 ? 1 : 0);
  const choice = random() % 20;
  const votes = { term: term + 1, vote: replica(1 + (random() % 3)), commit: last };
  if (choice < 2) return { group: id, hardState: votes };
  if (choice < 3) {
    const index = last + 1 + (random() % 5);
    const at = { index: index - (random() % 2), membership: membership(1 + (random() % 9), 11) };
    return { group: id, reset: { index, term, membership: at }, hardState: votes };
  }
  const truncates = choice < 6 && last >= state.firstIndex;
  const from = truncates ? last - (random() % Math.min(4, last + 1 - state.firstIndex)) : last + 1;
  const count = 1 + (random() % (random() % 8 === 0 ? 12 : 3));
  const entries = Array.from({ length: count }, (_, i) => {
    const index = from + i;
    if (random() % 16 === 0) return membershipEntry(index, term, 1 + (random() % 9), 10);
    const size = random() % (random() % 16 === 0 ? 900 : 60);
    // Each append is told apart from what it replaces.
    return command(index, term, `${random()} `.padEnd(size, 'x'));
  });
  const hardState = random() % 2 === 0 ? undefined : { ...state.hardState, commit: last };
  return { group: id, entries, hardState };
}
