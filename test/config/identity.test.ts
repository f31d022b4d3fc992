import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Identity, IdentityMismatch } from '../../src/config/identity.js';

describe('identity of a data directory', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'quorate-identity-'));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it('D40: is made once and the same ever after', () => {
    const first = Identity.open({ directory, clusterId: 'c', nodeId: 1 });
    const again = Identity.open({ directory, clusterId: 'c', nodeId: 1 });
    expect(first.isNew).to.equal(true);
    expect(again.isNew).to.equal(false);
    expect(Buffer.from(again.directoryId)).to.deep.equal(Buffer.from(first.directoryId));
    expect(first.directoryId.byteLength).to.equal(16);
  });

  for (const [what, other] of [
    ['another node', { clusterId: 'c', nodeId: 2 }],
    ['another cluster', { clusterId: 'd', nodeId: 1 }],
  ] as const) {
    it(`refuses the directory of ${what}, names both, and changes nothing`, () => {
      Identity.open({ directory, clusterId: 'c', nodeId: 1 });
      const before = readFileSync(join(directory, 'identity.json'), 'utf8');
      expect(() => Identity.open({ directory, ...other }))
        .to.throw(IdentityMismatch)
        .with.property('message')
        .that.contains("belongs to node 1 of cluster 'c'")
        .and.contains(directory)
        .and.contains('--data-directory');
      expect(readFileSync(join(directory, 'identity.json'), 'utf8')).to.equal(before);
    });
  }

  it('refuses a damaged identity file', () => {
    writeFileSync(join(directory, 'identity.json'), '{"version":1');
    expect(() => Identity.open({ directory, clusterId: 'c', nodeId: 1 })).to.throw(
      IdentityMismatch,
      'damaged',
    );
  });

  it('R24: remembers the directory of each peer across restarts', () => {
    const id = Buffer.alloc(16, 7);
    Identity.open({ directory, clusterId: 'c', nodeId: 1 }).remember(2, id);
    const again = Identity.open({ directory, clusterId: 'c', nodeId: 1 });
    expect(Buffer.from(again.known(2) ?? [])).to.deep.equal(id);
    expect(again.known(3)).to.equal(undefined);
  });
});
