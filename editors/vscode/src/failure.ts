// What went wrong, in the words of the command line: what, why, and what to do.

export class Failure extends Error {
	constructor(readonly code: string, readonly what: string, readonly why = '', readonly todo = '') {
		super(what);
	}
}

// Event is a line of what `MIRRORD_PROGRESS_MODE=json` prints.
export interface Event {
	level: 'step' | 'info' | 'warning' | 'error' | 'detail';
	code: string;
	text: string;
	facts?: Record<string, string>;
}

// parseEvent reads a line; undefined: it is none.
export function parseEvent(line: string): Event | undefined {
	try {
		const e = JSON.parse(line);
		return typeof e === 'object' && e !== null && typeof e.level === 'string' && typeof e.text === 'string' ? e : undefined;
	} catch {
		return undefined;
	}
}

// failureOf gives the failure that a program has told of before it ended; said is what it
// printed that is no event.
export function failureOf(events: Event[], said: string, code: number | null): Failure {
	const last = events.filter(e => e.level === 'error').pop();
	if (last) {
		return new Failure(last.code, last.text, last.facts?.why, last.facts?.do);
	}
	const why = said.trim().split('\n').slice(-5).join('\n');
	return new Failure('vscode-failed', `mirrord has ended with code ${code ?? 'none'}`, why, 'look at the log');
}

// A Place is where a mistake is. Lines and columns begin with 1.
export interface Place {
	file: string;
	line: number;
	column: number;
	text: string;
}

// placeOf finds the place at the beginning of a text: FILE:LINE:COLUMN: TEXT.
export function placeOf(text: string): Place | undefined {
	const m = /^(.+?):(\d+)(?::(\d+))?: ([\s\S]*)$/.exec(text);
	return m ? { file: m[1], line: Number(m[2]), column: Number(m[3] ?? 1), text: m[4] } : undefined;
}
