// gRPC's official client for Node.js, told what to do by lines of JSON on its standard input: see
// tests/integration/node_caller.py. Answers are lines too, in the order in which calls end.
//   node caller.js PROTO ADDRESS [TOKEN]
'use strict';

const readline = require('node:readline');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [proto, address, token] = process.argv.slice(2);
const description = loader.loadSync(proto, { keepCase: true, longs: Number, enums: String });
const { Invocations } = grpc.loadPackageDefinition(description).runtimed.v1;
const client = new Invocations(address, grpc.credentials.createInsecure(), {
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.enable_retries': 0,
});
const calls = new Map();

function tell(id, error, response) {
  const told = { id, status: grpc.status[error ? error.code : 0] };
  if (error) {
    told.code = error.metadata.get('runtimed-error-code')[0] || '';
    told.details = error.details;
  } else {
    told.response = { ...response, payload: (response.payload ?? Buffer.alloc(0)).toString('base64') };
  }
  calls.delete(id);
  process.stdout.write(JSON.stringify(told) + '\n');
}

function invoke({ id, request, milliseconds }) {
  const metadata = new grpc.Metadata();
  if (token) metadata.set('authorization', `Bearer ${token}`);
  const message = { ...request, payload: Buffer.from(request.payload, 'base64') };
  const options = milliseconds ? { deadline: Date.now() + milliseconds } : {};
  calls.set(id, client.Invoke(message, metadata, options, (error, response) => tell(id, error, response)));
}

function stream({ id, request, milliseconds }) {
  const message = { ...request, payload: Buffer.from(request.payload, 'base64') };
  const options = milliseconds ? { deadline: Date.now() + milliseconds } : {};
  const call = client.InvokeStream(message, new grpc.Metadata(), options);
  const parts = [];
  let last = {};
  calls.set(id, call);
  call.on('data', (told) => {
    if (told.payload_chunk) parts.push(told.payload_chunk);
    if (told.complete) last = told.complete;
  });
  call.on('error', () => {}); // the status says it
  call.on('status', (status) => tell(id, status.code ? status : null, { ...last, payload: Buffer.concat(parts) }));
}

readline
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    const told = JSON.parse(line);
    if (told.cancel) calls.get(told.id)?.cancel();
    else if (told.stream) stream(told);
    else invoke(told);
  })
  .on('close', () => client.close());
