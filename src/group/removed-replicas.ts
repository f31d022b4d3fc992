/** What a crash left of replicas that were removed: their keys in the engine (rule D01). */
import { groupId, type GroupId, type ReplicaId } from '../../raft/index.js';
import { afterPrefix, replicaPrefix, replicaRange, type Engine } from '../../storage/index.js';

const prefixBytes = replicaPrefix(groupId(0), 0 as ReplicaId).byteLength;
const behindAll = Buffer.alloc(prefixBytes + 1, 0xff);

/**
 * Clears the ranges of replicas at or below the floor of their group, and gives back how many there
 * were. Keys of a replica that the Raft log merely does not know stay: a log that was lost must not
 * take the data with it. One look at the engine for each replica.
 */
export async function clearRemovedReplicas(
  engine: Engine,
  floorOf: (group: GroupId) => ReplicaId,
): Promise<number> {
  let cleared = 0;
  let prefix = await firstPrefix(engine, Buffer.alloc(prefixBytes));
  while (prefix !== undefined) {
    const floor = floorOf(groupId(prefix.readUInt32BE(0)));
    if (prefix.readUInt32BE(4) <= floor) {
      await engine.clear(replicaRange(prefix));
      cleared++;
    }
    prefix = await firstPrefix(engine, afterPrefix(prefix));
  }
  return cleared;
}

/** Of the first key at or behind `start`. */
async function firstPrefix(engine: Engine, start: Uint8Array): Promise<Buffer | undefined> {
  const iterator = engine.iterate({
    start,
    end: behindAll,
    pageBytesMax: 1,
    pageLengthMax: 1,
    keysOnly: true,
  });
  try {
    const [pair] = await iterator.next();
    return pair === undefined ? undefined : Buffer.from(pair.key.subarray(0, prefixBytes));
  } finally {
    await iterator.close();
  }
}
