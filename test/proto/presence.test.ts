import { expect } from 'chai';
import { codecOf } from '../../proto/definitions.js';
import type { CompareMessage, PutRequest } from '../../proto/messages.js';

describe('a field that was not sent', () => {
  const compare = codecOf<CompareMessage>('quorate.v1.Compare');
  const key = Buffer.from('k');

  it('reads as null in a oneof, so that one that was sent can be told from it', () => {
    const read = (message: CompareMessage): unknown => {
      const { exists, revision, value } = compare.decode(compare.encode(message));
      return { exists, revision, value };
    };
    const none = { exists: null, revision: null, value: null };
    expect(read({ key, exists: false })).to.deep.equal({ ...none, exists: false });
    expect(read({ key, revision: 0 })).to.deep.equal({ ...none, revision: 0 });
    expect(read({ key, value: Buffer.from('v') })).to.deep.equal({
      ...none,
      value: Buffer.from('v'),
    });
    expect(read({ key })).to.deep.equal(none);
  });

  it('reads as null if it is optional, and as empty bytes if it is bytes', () => {
    const put = codecOf<PutRequest>('quorate.v1.PutRequest');
    const { ifRevision, value } = put.decode(new Uint8Array());
    expect(ifRevision).to.equal(null);
    expect(value).to.deep.equal(Buffer.alloc(0));
  });
});
