/**
 * The call that brings steps of a migration, for the door of the unary KV calls: behind the other one no
 * message is larger than a client's request, and a piece with a whole change may be.
 */
import { codecOf } from '../../proto/definitions.js';
import type { StepMigrationReply, StepMigrationRequest } from '../../proto/messages.js';
import type { AdminMethods } from './grpc-server.js';
import { toKvError } from './status.js';
import type { UnaryMethod } from './unary.js';

const requests = codecOf<StepMigrationRequest>('quorate.v1.StepMigrationRequest');
const replies = codecOf<StepMigrationReply>('quorate.v1.StepMigrationReply');

export function stepMigrationMethod({ StepMigration: step }: AdminMethods): UnaryMethod {
  return (bytes, call, done) => {
    call.mayHaveApplied = true;
    carryOut(bytes, call.forwarded).then(
      (reply) => {
        done(undefined, reply);
      },
      (error: unknown) => {
        done(toKvError(error), undefined);
      },
    );
  };

  async function carryOut(bytes: Uint8Array, forwarded: boolean): Promise<Uint8Array> {
    const reply = await step?.(requests.decode(bytes), forwarded);
    // The codec encodes what the method of this very name answers.
    return replies.encode(reply as StepMigrationReply);
  }
}
