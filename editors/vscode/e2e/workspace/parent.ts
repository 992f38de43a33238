// A parent whose child serves.
import { fork } from 'node:child_process';
import { createServer, IncomingMessage, ServerResponse } from 'node:http';

interface Answer { who: string; url: string }

function serve(request: IncomingMessage, response: ServerResponse): void {
	const answer: Answer = { who: `child colour=${process.env.COLOUR}`, url: request.url ?? '' };
	response.end(`${answer.who} ${answer.url}\n`); // a breakpoint is set here
}

if (process.argv[2] === 'child') {
	createServer(serve).listen(8080, () => console.log('the child listens'));
} else {
	fork(__filename, ['child']);
}
