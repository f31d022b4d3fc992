import { expect } from 'chai';
import {
  groupId,
  membershipOf,
  nodeId,
  replicaId,
  type SnapshotMeta,
} from '../../../raft/index.js';
import {
  MemoryEngine,
  putAppliedMark,
  putInstalled,
  putRestoringMark,
  readAppliedMark,
  readInstalledMark,
  readRestoringMark,
  replicaKey,
  replicaPrefix,
} from '../../../storage/index.js';

const prefix = replicaPrefix(groupId(7), replicaId(2));
const other = replicaPrefix(groupId(7), replicaId(3));
const snapshot: SnapshotMeta = {
  index: 2 ** 40,
  term: 12,
  membership: {
    index: 99,
    membership: membershipOf([1, 2, 3].map((id) => ({ id: replicaId(id), node: nodeId(id) }))),
  },
};

async function written(
  fill: (batch: ReturnType<MemoryEngine['batch']>) => void,
): Promise<MemoryEngine> {
  const engine = new MemoryEngine();
  const batch = engine.batch();
  fill(batch);
  await engine.write(batch, { sync: true });
  return engine;
}

describe('marks of a replica', () => {
  it('begin at entry 0 of term 0, with nothing being restored', async () => {
    const engine = new MemoryEngine();
    expect(await readAppliedMark(engine, prefix)).to.deep.equal({ index: 0, term: 0 });
    expect(await readRestoringMark(engine, prefix)).to.equal(undefined);
    expect(await readInstalledMark(engine, prefix)).to.equal(undefined);
  });

  it('come back as they were written, each for its own replica', async () => {
    const engine = await written((batch) => {
      putAppliedMark(batch, prefix, { index: Number.MAX_SAFE_INTEGER, term: 5 });
      putRestoringMark(batch, prefix, snapshot);
    });
    expect(await readAppliedMark(engine, prefix)).to.deep.equal({
      index: Number.MAX_SAFE_INTEGER,
      term: 5,
    });
    expect(await readRestoringMark(engine, prefix)).to.deep.equal(snapshot);
    expect(await readAppliedMark(engine, other)).to.deep.equal({ index: 0, term: 0 });
    expect(await readRestoringMark(engine, other)).to.equal(undefined);
  });

  it('D15: the end of an install takes the restoring mark away and sets the others, in one batch', async () => {
    const engine = await written((batch) => putRestoringMark(batch, prefix, snapshot));
    const batch = engine.batch();
    putInstalled(batch, prefix, snapshot);
    await engine.write(batch, { sync: true });
    expect(await readRestoringMark(engine, prefix)).to.equal(undefined);
    expect(await readInstalledMark(engine, prefix)).to.deep.equal(snapshot);
    expect(await readAppliedMark(engine, prefix)).to.deep.equal({
      index: snapshot.index,
      term: snapshot.term,
    });
  });

  it('D16: of an unknown version stop the node instead of being guessed at', async () => {
    for (const name of ['applied', 'restoring', 'installed']) {
      const engine = await written((batch) => {
        putAppliedMark(batch, prefix, snapshot);
        putRestoringMark(batch, prefix, snapshot);
      });
      const batch = engine.batch();
      batch.put(replicaKey(prefix, name), Buffer.from([200, ...Buffer.alloc(40)]));
      await engine.write(batch, { sync: true });
      const read = { applied: readAppliedMark, restoring: readRestoringMark }[name];
      const error = await (read ?? readInstalledMark)(engine, prefix).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(String(error), name).to.match(/version/);
    }
  });
});
