"""Site files: YAML that declares operators, nodes, customers, tariffs, contracts, parties and shares.

nodes       YAML text -> trees that know their lines
scalars     the types of single texts          schema   tables, lists, and reading by them
kinds       every kind's keys                  rules    what concerns several keys of one document
reading     files and folders -> documents     versions which version each document is
references  rules between documents            apply    all of it, against a store
store       the port to what is stored         writing  back to YAML
"""
