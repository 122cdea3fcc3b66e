"""Site files: YAML that declares operators, nodes, customers, tariffs, contracts, parties and shares.

nodes       YAML text -> trees that know their lines
scalars     the types of single texts (legal_scalars, tariff_scalars)
schema      tables, lists, and reading by them
kinds       every kind's keys (tariff_kinds)    rules       what concerns several keys of one document (tariff_rules)
series      hourly prices in CSV                json_schema the tables once more, for editors
reading     files and folders -> documents      versions    which version each document is
superseding a version in another's place        issued      what documents and closes hold fast, or rate anew
references  rules between documents (tariff_references)
findings    what is legal and odd               apply       all of it, against a store
store       the port to what is stored          writing     back to YAML
"""
