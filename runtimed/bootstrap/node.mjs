// The Node.js runtime: what an environment of nodejsNN.x runs, from the interpreter's start to its end.
//
// `node node.mjs`, with Lambda's variables and the handler's name in _HANDLER, in the function's directory. It imports the
// handler and asks the Runtime API for one invocation after the other. Behaviour as Lambda documents it for Node.js:
// handlers that are async or take a callback, response streaming by awslambda.streamifyResponse, console methods
// that write lines of the log, errors as {errorType, errorMessage, trace}. The process is the function's own: nothing
// here is kept from it.

import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';
import util from 'node:util';

const API = '/2018-06-01/runtime';
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HTTP_METADATA = 'application/vnd.awslambda.http-integration-response';
const EXIT_UNCAUGHT = 129;
const EXIT_UNHANDLED = 128;
const LEVELS = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];

const { AWS_LAMBDA_RUNTIME_API: authority, _HANDLER: handlerName, LAMBDA_TASK_ROOT: taskRoot = '/var/task' } = process.env;
const inJson = process.env.AWS_LAMBDA_LOG_FORMAT === 'JSON';
const lowestLevel = inJson ? Math.max(0, LEVELS.indexOf(process.env.AWS_LAMBDA_LOG_LEVEL ?? 'INFO')) : 0;

let invocation; // the one at work, or undefined

// ---- errors ------------------------------------------------------------------------------------------------------

class RuntimeFault extends Error {
  constructor(name, message, cause) {
    super(message);
    this.name = name;
    if (cause?.stack) this.stack = `${name}: ${message}\n${String(cause.stack)}`;
  }
}

function described(error) {
  if (util.types.isNativeError(error) || error instanceof Error) {
    const stack = typeof error.stack === 'string' ? error.stack.split('\n') : [];
    return { errorType: String(error.name ?? 'Error'), errorMessage: String(error.message ?? ''), trace: stack };
  }
  return { errorType: typeof error, errorMessage: text(error), trace: [] };
}

function text(value) {
  try {
    return String(value);
  } catch {
    return util.inspect(value);
  }
}

function asJson(value, what) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch (error) {
    throw new RuntimeFault('Runtime.MarshalError', `Unable to stringify ${what}: ${text(error?.message ?? error)}`);
  }
}

// What an error looks like in the log: its description, and members of its own.
function logged(error) {
  const told = described(error);
  const own = {};
  if (typeof error === 'object' && error !== null) {
    for (const key of Object.keys(error)) own[key] = error[key];
  }
  const whole = { errorType: told.errorType, errorMessage: told.errorMessage, ...own, stack: told.trace };
  try {
    return JSON.stringify(whole);
  } catch {
    return JSON.stringify({ ...told });
  }
}

// ---- the log -----------------------------------------------------------------------------------------------------

// A pipe, written whole and at once: what was logged is there before the answer that follows it.
function writeLine(line) {
  const bytes = Buffer.from(`${line}\n`);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') return; // nobody reads any more
    }
  }
}

function log(level, values) {
  if (LEVELS.indexOf(level) < lowestLevel) return;
  const timestamp = new Date().toISOString();
  const requestId = invocation?.id;
  if (!inJson) {
    writeLine(`${timestamp}\t${requestId}\t${level}\t${util.format(...values)}`);
    return;
  }
  const record = { timestamp, level, requestId };
  const error = values.find((value) => value instanceof Error);
  record.message = values.length === 1 && !error && plain(values[0]) ? values[0] : util.format(...values);
  if (error) Object.assign(record, JSON.parse(logged(error)), { message: util.format(...values) });
  writeLine(JSON.stringify(record));
}

function plain(value) {
  try {
    return typeof value === 'object' && value !== null && JSON.stringify(value) !== undefined;
  } catch {
    return false;
  }
}

function takeConsole() {
  const methods = { trace: 'TRACE', debug: 'DEBUG', log: 'INFO', info: 'INFO', warn: 'WARN', error: 'ERROR', fatal: 'FATAL' };
  for (const [name, level] of Object.entries(methods)) console[name] = (...values) => log(level, values);
}

// ---- the Runtime API ---------------------------------------------------------------------------------------------

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const [host, port] = (authority ?? '').split(':');

function ask(method, where, headers, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, host, port, method, path: API + where, headers }, (response) => {
      const pieces = [];
      response.on('data', (piece) => pieces.push(piece));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function tell(where, body, headers = {}) {
  const bytes = Buffer.from(body);
  const answer = await ask('POST', where, { 'Content-Type': 'application/json', 'Content-Length': bytes.length, ...headers }, bytes);
  if (answer.status === 413) {
    // It took the place of the answer: the caller is told.
    return;
  }
  if (answer.status >= 400) throw new Error(`the Runtime API answered ${answer.status} to ${where}: ${answer.body}`);
}

async function tellError(where, error) {
  const told = described(error);
  await tell(where, asJson(told, 'the error'), { 'Lambda-Runtime-Function-Error-Type': told.errorType });
}

function leave(status) {
  process.exit(status);
}

// ---- the handler -------------------------------------------------------------------------------------------------

// "dir/module.export.member": where the module is, and the way to the function in it.
function parseHandler(name) {
  const base = path.basename(name ?? '');
  const directory = (name ?? '').slice(0, (name ?? '').length - base.length);
  const match = /^([^.]*)\.(.+)$/.exec(base);
  if (!match || !match[1] || directory.includes('..')) {
    throw new RuntimeFault('Runtime.MalformedHandlerName', 'Bad handler');
  }
  return { module: path.resolve(taskRoot, directory, match[1]), label: directory + match[1], members: match[2].split('.') };
}

async function importModule(place, label) {
  const require = createRequire(pathToFileURL(`${place}.js`));
  const found = ['', '.js', '.mjs', '.cjs'].map((suffix) => place + suffix).find((file) => fs.statSync(file, { throwIfNoEntry: false })?.isFile());
  try {
    if (found !== undefined) return await import(pathToFileURL(found).href);
    // A directory with an index or a package.json, or a package on NODE_PATH.
    for (const where of [place, label]) {
      try {
        return require(where);
      } catch (error) {
        if (error.code !== 'MODULE_NOT_FOUND') throw error;
      }
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw new RuntimeFault('Runtime.UserCodeSyntaxError', text(error), error);
    if (error?.code === 'MODULE_NOT_FOUND' || error?.code === 'ERR_MODULE_NOT_FOUND') {
      throw new RuntimeFault('Runtime.ImportModuleError', text(error), error);
    }
    throw error;
  }
  throw new RuntimeFault('Runtime.ImportModuleError', `Error: Cannot find module '${label}'`);
}

async function loadHandler() {
  const { module, label, members } = parseHandler(handlerName);
  const loaded = await importModule(module, label);
  const walk = (from) => members.reduce((at, member) => at?.[member], from);
  const found = walk(loaded) ?? walk(loaded?.default);
  if (found === undefined || found === null) {
    throw new RuntimeFault('Runtime.HandlerNotFound', `${handlerName} is undefined or not exported`);
  }
  if (typeof found !== 'function') throw new RuntimeFault('Runtime.HandlerNotFound', `${handlerName} is not a function`);
  return found;
}

// ---- streaming ---------------------------------------------------------------------------------------------------

// As Lambda's: handlers for response streaming are marked, and may say status and headers of an HTTP answer first.
globalThis.awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = options?.highWaterMark ?? true;
    return handler;
  },
  HttpResponseStream: {
    from(stream, prelude) {
      stream.setContentType(HTTP_METADATA);
      stream.prelude = Buffer.concat([Buffer.from(JSON.stringify(prelude)), Buffer.alloc(8)]);
      return stream;
    },
  },
};

class ResponseStream extends PassThrough {
  constructor() {
    super();
    this.contentType = undefined;
    this.prelude = undefined;
  }

  setContentType(type) {
    this.contentType = type;
  }

  write(piece, ...rest) {
    return super.write(asPiece(piece), ...rest);
  }

  end(piece, ...rest) {
    return piece === undefined || piece === null || typeof piece === 'function' ? super.end(piece, ...rest) : super.end(asPiece(piece), ...rest);
  }
}

function asPiece(piece) {
  return typeof piece === 'string' || ArrayBuffer.isView(piece) ? piece : JSON.stringify(piece);
}

// Passes on what the handler writes, with back-pressure; an error after the beginning goes into the trailers.
async function respondStreaming(handler, event, context) {
  const stream = new ResponseStream();
  const where = `/invocation/${context.awsRequestId}/response`;
  let request;
  const answered = new Promise((resolve, reject) => {
    const begin = () => {
      const headers = {
        'Lambda-Runtime-Function-Response-Mode': 'streaming',
        'Content-Type': stream.contentType ?? 'application/octet-stream',
        'Transfer-Encoding': 'chunked',
        Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
      };
      request = http.request({ agent, host, port, method: 'POST', path: API + where, headers }, (response) => {
        response.resume();
        response.on('end', resolve);
      });
      request.on('error', reject);
      if (stream.prelude) request.write(stream.prelude);
    };
    stream.on('data', (piece) => {
      if (request === undefined) begin();
      if (!request.write(piece)) {
        stream.pause();
        request.once('drain', () => stream.resume());
      }
    });
    stream.on('end', () => {
      if (request === undefined) begin();
      request.end();
    });
  });
  try {
    await handler(event, stream, context);
    if (!stream.writableEnded) stream.end();
  } catch (error) {
    log('ERROR', ['Invoke Error', logged(error)]);
    if (request === undefined) return tellError(`/invocation/${context.awsRequestId}/error`, error);
    const told = described(error);
    request.addTrailers({
      'Lambda-Runtime-Function-Error-Type': told.errorType,
      'Lambda-Runtime-Function-Error-Body': Buffer.from(asJson(told, 'the error')).toString('base64'),
    });
    stream.removeAllListeners('end');
    request.end();
  }
  return answered;
}

// ---- invocations -------------------------------------------------------------------------------------------------

class Invocation {
  constructor(headers) {
    this.id = headers['lambda-runtime-aws-request-id'];
    this.deadline = Number(headers['lambda-runtime-deadline-ms']);
    this.waitsForEmptyLoop = true;
    const trace = headers['lambda-runtime-trace-id'];
    if (trace) process.env._X_AMZN_TRACE_ID = trace;
    else delete process.env._X_AMZN_TRACE_ID;
    this.context = this.makeContext(headers);
    this.result = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.result.catch(() => {}); // context.fail of a handler whose promise answers
  }

  makeContext(headers) {
    const json = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
    const owner = this;
    return {
      get callbackWaitsForEmptyEventLoop() {
        return owner.waitsForEmptyLoop;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        owner.waitsForEmptyLoop = Boolean(value);
      },
      functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
      functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
      memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
      logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
      logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
      clientContext: json('lambda-runtime-client-context'),
      identity: json('lambda-runtime-cognito-identity'),
      invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
      awsRequestId: this.id,
      getRemainingTimeInMillis: () => this.deadline - Date.now(),
      succeed: (value) => this.settle(undefined, value, false),
      fail: (error) => this.settle(error ?? 'handled', undefined, false),
      done: (error, value) => this.settle(error, value, false),
    };
  }

  // A callback's: the answer goes out when nothing is left to do, or at once if the handler says so.
  settle(error, value, waits = this.waitsForEmptyLoop) {
    const now = () => (error === undefined || error === null ? this.resolve(value) : this.reject(error));
    if (waits) this.whenIdle = now;
    else now();
  }

  async run(handler, event) {
    const callback = (error, value) => this.settle(error, value);
    const returned = handler(event, this.context, callback);
    if (typeof returned?.then === 'function') return returned;
    // Not a promise: the callback answers, or the end of everything that the handler began.
    this.whenIdle ??= () => this.resolve(undefined);
    return this.result;
  }
}

process.on('beforeExit', () => {
  const idle = invocation?.whenIdle;
  if (idle !== undefined) {
    invocation.whenIdle = undefined;
    idle();
  }
});

async function dieOf(error, status) {
  log('ERROR', [status === EXIT_UNHANDLED ? 'Unhandled Promise Rejection' : 'Uncaught Exception', logged(error)]);
  try {
    await tellError(invocation ? `/invocation/${invocation.id}/error` : '/init/error', error);
  } catch {
    // it answered already, or nobody listens
  }
  leave(status);
}

async function serve(handler) {
  for (;;) {
    const next = await ask('GET', '/invocation/next', {});
    if (next.status !== 200) throw new Error(`the Runtime API answered ${next.status} to a request for an event: ${next.body}`);
    invocation = new Invocation(next.headers);
    const event = JSON.parse(next.body.toString());
    if (handler[STREAMING] !== undefined) {
      await respondStreaming(handler, event, invocation.context);
    } else {
      await respond(handler, event);
    }
    invocation = undefined;
  }
}

async function respond(handler, event) {
  const where = `/invocation/${invocation.id}`;
  try {
    await tell(`${where}/response`, asJson(await invocation.run(handler, event), 'the response'));
  } catch (error) {
    log('ERROR', ['Invoke Error', logged(error)]);
    await tellError(`${where}/error`, error);
  }
}

async function main() {
  takeConsole();
  process.on('uncaughtException', (error) => dieOf(error, EXIT_UNCAUGHT));
  process.on('unhandledRejection', (reason) =>
    dieOf(new RuntimeFault('Runtime.UnhandledPromiseRejection', text(reason), reason), EXIT_UNHANDLED));
  let handler;
  try {
    handler = await loadHandler();
  } catch (error) {
    log('ERROR', ['Uncaught Exception', logged(error)]);
    await tellError('/init/error', error);
    leave(1);
  }
  await serve(handler);
}

main().catch((error) => {
  writeLine(`runtimed: the Node.js runtime ends: ${error?.stack ?? error}`);
  leave(1);
});
