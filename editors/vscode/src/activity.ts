// What goes on in a session, as the program tells it. Pure.

// Activity is a line of `mirrord status --events - ID`.
export interface Activity {
	at: string;
	session: string;
	kind: string;
	flow?: string;
	what?: string;
	where?: string;
	mode?: string;
	client?: string;
	port?: number;
	address?: string;
	name?: string;
	method?: string;
	path?: string;
	status?: number;
	ms?: number;
	error?: string;
	level?: string;
	text?: string;
}

// asked are the last requests that came for the target, each once: what is kept of one is
// its method, its path and its port. Those of this machine have no mode.
export function asked(recent: Activity[]): Activity[] {
	const seen = new Map<string, Activity>();
	for (const a of recent.filter(a => a.kind === 'request' && a.flow !== 'outgoing' && a.mode && a.method && a.path)) {
		seen.set(`${a.method} ${a.path} ${a.port}`, seen.get(`${a.method} ${a.path} ${a.port}`) ?? a);
	}
	return [...seen.values()].slice(0, 10);
}

// line says an activity in a few words.
export function line(a: Activity): string {
	const took = a.ms === undefined ? '' : `${a.ms} ms`;
	switch (a.kind) {
	case 'request': return [a.method, a.path, a.status ? `→ ${a.status}` : '', took, a.mode].filter(p => p).join(' ');
	case 'lookup': return [a.name, a.what].filter(p => p).join(' ');
	case 'file': return [a.what, a.path, a.where, a.error].filter(p => p).join(' ');
	}
	return [a.what, a.name ?? a.address, a.port, a.where, a.error].filter(p => p !== undefined && p !== '').join(' ');
}

const kept = 200; // activities of a kind that a session remembers

// keep puts an activity before those that came earlier, and forgets the oldest of its
// kind beyond what is kept: a program that reads many files has its requests still.
export function keep(recent: Activity[], a: Activity): void {
	recent.unshift(a);
	let same = 0;
	const beyond = recent.findIndex(o => o.kind === a.kind && ++same > kept);
	if (beyond >= 0) {
		recent.splice(beyond, 1);
	}
}
