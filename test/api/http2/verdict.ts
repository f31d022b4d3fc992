/** What a server makes of a session, and how to see it. */
import { expect } from 'chai';
import { data, headers, requestBlock, WHOLE, type RawPeer } from './raw-peer.js';

/** What the server does: ends the connection, ends a stream, or answers. */
export type Verdict =
  { readonly goaway: number } | { readonly reset: number } | { readonly answered: string };
export type Case = readonly [title: string, bytes: readonly Buffer[], verdict: Verdict];

/** A request whose body has not come. */
export const opened = (streamId: number): Buffer => headers(streamId, '/echo', WHOLE);
export const block = (fields: readonly (readonly [string, string])[]): Buffer =>
  requestBlock('/echo', fields);
export const bytes = (length: number): Buffer => Buffer.alloc(length, 'x');

export async function check(peer: RawPeer, verdict: Verdict): Promise<void> {
  if ('goaway' in verdict) {
    await peer.until('the connection ends', () => peer.closed);
    expect(peer.goaway?.code).to.equal(verdict.goaway);
    return;
  }
  // The connection goes on whatever became of the stream, and in order.
  peer.send(opened(7), data(7, Buffer.from('still here')));
  await peer.until('a later request is answered', () => peer.isAnswered(7));
  expect(peer.bodyOf(7).toString()).to.equal('still here');
  expect(peer.goaway).to.equal(undefined);
  if ('reset' in verdict) expect(peer.resetOf(1)).to.equal(verdict.reset);
  else {
    const answered = peer.isAnswered(1) ? 1 : 3;
    expect(peer.isAnswered(answered)).to.equal(true);
    expect(peer.bodyOf(answered).toString()).to.equal(verdict.answered);
  }
}
