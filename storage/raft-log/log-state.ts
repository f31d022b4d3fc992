/**
 * The state of the whole log: a function of the records in their order, and of nothing else. A
 * running log applies a record once it is durable, recovery applies it when it is read back.
 */
import assert from 'node:assert/strict';
import { noReplica } from '../../raft/index.js';
import type { GroupId, ReplicaId } from '../../raft/index.js';
import type { FramePlace } from './frame-runs.js';
import { GroupIndex, emptyGroup } from './group-index.js';
import type { CheckpointRecord, GroupCreatedRecord, LogRecord } from './record.js';
import { SegmentUse } from './segment-use.js';

export class LogState {
  readonly use = new SegmentUse();
  private readonly groups = new Map<GroupId, GroupIndex>();
  private readonly floors = new Map<GroupId, ReplicaId>();

  group(group: GroupId): GroupIndex | undefined {
    return this.groups.get(group);
  }

  /** Ascending by id. */
  allGroups(): readonly GroupIndex[] {
    return [...this.groups.values()].sort((a, b) => a.group - b.group);
  }

  /** The highest replica id removed here, `noReplica` if none was (rule D01). */
  removedFloor(group: GroupId): ReplicaId {
    return this.floors.get(group) ?? noReplica;
  }

  checkpoint(): CheckpointRecord {
    const removed = [...this.floors].map(([group, floor]) => ({ group, floor }));
    removed.sort((a, b) => a.group - b.group);
    return {
      kind: 'checkpoint',
      groups: this.allGroups().map((group) => group.checkpoint()),
      removed,
    };
  }

  /** Begins with the checkpoint of the oldest segment. */
  load(checkpoint: CheckpointRecord): void {
    assert(this.groups.size === 0 && this.floors.size === 0, 'a checkpoint is loaded once');
    for (const { group, floor } of checkpoint.removed) this.floors.set(group, floor);
    for (const state of checkpoint.groups) {
      assert(!this.groups.has(state.group), `group ${state.group} twice in a checkpoint`);
      this.groups.set(state.group, new GroupIndex(state, this.use));
    }
  }

  /** `place`: the frame the record is in. Throws when the record does not follow from the state. */
  apply(record: LogRecord, place: FramePlace): void {
    switch (record.kind) {
      case 'append': {
        const index = this.owned(record);
        if (record.generation !== undefined) index.generation = record.generation;
        if (record.reset !== undefined) index.reset(record.reset);
        index.append(record.entries, place);
        if (record.hardState !== undefined) index.hardState = record.hardState;
        return;
      }
      case 'relocation':
        return this.owned(record).relocate(record.entries, place);
      case 'compaction':
        return this.owned(record).compact(record);
      case 'groupCreated':
        return this.create(record);
      case 'groupRemoved': {
        this.owned(record).runs.clear();
        this.groups.delete(record.group);
        this.floors.set(record.group, record.replica);
        return;
      }
      case 'checkpoint':
        throw new RangeError('a checkpoint in the middle of a segment');
      case 'closed':
        return undefined;
    }
  }

  private create(record: GroupCreatedRecord): void {
    const { group, replica } = record;
    const floor = this.removedFloor(group);
    assert(replica > floor, `replica ${replica} of group ${group} was removed (floor ${floor})`);
    assert(!this.groups.has(group), `group ${group} is created while it exists`);
    this.groups.set(group, new GroupIndex(emptyGroup(record), this.use));
  }

  private owned(record: { readonly group: GroupId; readonly replica: ReplicaId }): GroupIndex {
    const { group, replica } = record;
    const index = this.groups.get(group);
    assert(index !== undefined, `no group ${group}`);
    assert(index.replica === replica, `group ${group} is replica ${index.replica}, not ${replica}`);
    return index;
  }
}
