// The targets that there are, as `mirrord ls -o json` lists them, in the order of a list
// to choose from. Pure.

export interface Target {
	path: string;
	kind: string;
	available: boolean;
	ready: number;
	wanted: number;
	ports: number[] | null;
}

export interface Listing {
	targets: Target[];
	current_namespace: string;
	context?: string;
	contexts?: string[];
	namespaces?: string[];
}

// Choice is a target with the place that it is in. path is empty: no target.
export interface Choice {
	path: string;
	namespace: string;
	context?: string;
}

export interface Row {
	label: string;
	description: string;
	detail?: string;
	separator?: boolean;
	choice?: Choice;
}

const icons: Record<string, string> = {
	pod: '$(circle-outline)', deployment: '$(layers)', rollout: '$(layers)', statefulset: '$(database)', daemonset: '$(server)',
	replicaset: '$(copy)', job: '$(clock)', cronjob: '$(clock)', service: '$(globe)',
};

// rows lists what can be chosen: the recent ones first, then by kind, then none.
export function rows(list: Listing, recent: Choice[]): Row[] {
	const all: Row[] = [];
	const row = (t: Target): Row => ({
		label: `${icons[t.kind] ?? '$(circle-outline)'} ${t.path}`,
		description: [`${t.ready}/${t.wanted} ready`, ...(t.ports?.length ? [`ports ${t.ports.join(', ')}`] : [])].join(' · '),
		choice: { path: t.path, namespace: list.current_namespace, context: list.context },
	});
	const here = recent.filter(r => r.path !== '' && r.namespace === list.current_namespace && r.context === list.context);
	const known = here.map(r => list.targets.find(t => t.path === r.path)).filter(t => t !== undefined);
	if (known.length > 0) {
		all.push({ label: 'recent', description: '', separator: true }, ...known.map(row));
	}
	for (const kind of new Set(list.targets.map(t => t.kind))) {
		all.push({ label: kind, description: '', separator: true }, ...list.targets.filter(t => t.kind === kind).map(row));
	}
	all.push({ label: '', description: '', separator: true }, {
		label: '$(circle-slash) no target', description: 'the cluster\'s network and names only',
		choice: { path: '', namespace: list.current_namespace, context: list.context },
	});
	return all;
}

// remember puts a choice first among the recent ones, of which there are ten at most.
export function remember(recent: Choice[], c: Choice): Choice[] {
	const same = (r: Choice): boolean => r.path === c.path && r.namespace === c.namespace && r.context === c.context;
	return [c, ...recent.filter(r => !same(r))].slice(0, 10);
}

// nameOf says a choice in a word or two.
export function nameOf(c: Choice | undefined): string {
	if (!c) {
		return 'no target chosen';
	}
	return `${c.path === '' ? 'no target' : c.path} in ${c.namespace}`;
}
